//! gzip or plain, detected by content: one or many members, each to its trailer. Errors of the source pass through unchanged.

use crate::error::SourceFault;
use crate::store::interrupt::Interrupt;
use crate::store::open_source::Opened;
use crc32fast::Hasher;
use flate2::bufread::GzDecoder;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Compressed bytes held at a time.
const BUFFER: usize = 128 * 1024;
/// Bytes by which a source is judged: a byte order mark and one more.
const HEAD: u64 = 4;
/// How gzip begins.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A fault of the source inside an `io::Error`, so that it survives a reader's layers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub SourceFault);

impl Broken {
    /// The fault as an error of a reader.
    pub fn io(fault: SourceFault) -> io::Error {
        io::Error::other(Broken(fault))
    }
}

/// What an error that came out of an inflated source means.
pub fn fault(error: &io::Error) -> SourceFault {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Broken>()) {
        Some(Broken(fault)) => fault.clone(),
        None => SourceFault::Read(error.to_string()),
    }
}

/// Where reading can begin: at the beginning, at a member of gzip, anywhere in plain text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Bytes before it as they are sent.
    pub sent: u64,
    /// Inflated bytes before it, and their CRC-32.
    pub inflated: u64,
    pub crc: u32,
    /// Whether a member of gzip begins there, and not a line of plain text.
    pub gzip: bool,
}

/// The members of a gzip that began, as far as nobody has passed them.
#[derive(Debug, Clone, Default)]
pub struct Members(Arc<Mutex<VecDeque<Restart>>>);

impl Members {
    fn begin(&self, member: Restart) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that holds nothing is none to begin at.
        if members.back().is_some_and(|last| last.inflated == member.inflated) {
            members.pop_back();
        }
        members.push_back(member);
    }

    /// The last that begins no later than behind so many inflated bytes; earlier ones are forgotten.
    pub fn before(&self, inflated: u64) -> Option<Restart> {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while members.get(1).is_some_and(|next| next.inflated <= inflated) {
            members.pop_front();
        }
        members.front().copied()
    }
}

/// The plain bytes of a source.
pub struct Inflated {
    pub reader: Box<dyn Read + Send>,
    /// None of plain text, where reading can begin anywhere.
    pub members: Option<Members>,
    /// Bytes that came in so far, as they are sent, from the source's beginning.
    pub sent: Arc<AtomicU64>,
    /// Whether a part of the source can be asked for.
    pub ranged: bool,
}

/// The plain bytes of a source that was opened where reading can begin.
///
/// # Errors
/// That of reading the first bytes.
pub fn inflate(opened: Opened, interrupt: Interrupt, from: Restart) -> Result<Inflated, SourceFault> {
    let sent = Arc::new(AtomicU64::new(from.sent));
    let mut guarded = Guarded { reader: opened.reader, interrupt, sent: Arc::clone(&sent) };
    // A connection may bring its first bytes one by one.
    let mut head = Vec::new();
    guarded.by_ref().take(HEAD).read_to_end(&mut head).map_err(|error| fault(&error))?;
    let raw = BufReader::with_capacity(BUFFER, io::Cursor::new(head.clone()).chain(guarded));
    let within_text = from.sent > 0 && !from.gzip;
    // The trailer of a member proves nothing about the next.
    if !opened.delimited {
        return Err(SourceFault::Unframed);
    }
    if head.starts_with(&MAGIC) && !within_text {
        let members = Members::default();
        members.begin(Restart { gzip: true, ..from });
        let counted = Passed { reader: raw, bytes: from.sent };
        let gzip =
            Gzip { member: Some(GzDecoder::new(counted)), inflated: from.inflated, crc: Hasher::new_with_initial(from.crc), members };
        let members = Some(gzip.members.clone());
        return Ok(Inflated { reader: Box::new(gzip), members, sent, ranged: opened.ranged });
    }
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&head);
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        _ if from.sent > 0 && !within_text => Err(SourceFault::Changed),
        Some(byte) if !within_text && (byte.is_ascii_control() || !byte.is_ascii()) => Err(SourceFault::NotNdjson),
        _ => Ok(Inflated { reader: Box::new(raw), members: None, sent, ranged: opened.ranged }),
    }
}

/// A reader that ends with an error once its operation was interrupted.
struct Guarded {
    reader: Box<dyn Read + Send>,
    interrupt: Interrupt,
    sent: Arc<AtomicU64>,
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.is_stopped() {
            return Err(Broken::io(SourceFault::Read("interrupted".to_owned())));
        }
        let count = self.reader.read(buffer).map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<Broken>() => error,
            _ => Broken::io(SourceFault::Read(error.to_string())),
        })?;
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Counts what was used up.
struct Passed<R> {
    reader: R,
    bytes: u64,
}

impl<R: Read> Read for Passed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Passed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes += amount as u64;
        self.reader.consume(amount);
    }
}

/// Member after member. Names what the decoder says: everything that is not the source's own fault is gzip's.
struct Gzip<R> {
    /// None behind the last, and after an error.
    member: Option<GzDecoder<Passed<R>>>,
    inflated: u64,
    crc: Hasher,
    members: Members,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let named = |error: io::Error| match error.get_ref() {
            Some(inner) if inner.is::<Broken>() => error,
            _ if error.kind() == ErrorKind::UnexpectedEof => Broken::io(SourceFault::Truncated("the gzip trailer is missing".to_owned())),
            _ => Broken::io(SourceFault::Gzip(error.to_string())),
        };
        while let Some(member) = &mut self.member {
            let count = member.read(buffer).map_err(named)?;
            if count > 0 || buffer.is_empty() {
                self.inflated += count as u64;
                self.crc.update(&buffer[..count]);
                return Ok(count);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            if !rest.fill_buf().map_err(named)?.is_empty() {
                let (sent, inflated) = (rest.bytes, self.inflated);
                self.members.begin(Restart { sent, inflated, crc: self.crc.clone().finalize(), gzip: true });
                self.member = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open_source::Identity;
    use flate2::{Compression, write::GzEncoder};
    use std::io::{Cursor, Write};

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn open(bytes: Vec<u8>, delimited: bool, from: Restart) -> Result<Inflated, SourceFault> {
        let reader = Box::new(Cursor::new(bytes));
        inflate(Opened { reader, delimited, ranged: true, identity: Identity::default() }, Interrupt::new(), from)
    }

    fn read(bytes: Vec<u8>, delimited: bool) -> Result<Vec<u8>, SourceFault> {
        let mut out = Vec::new();
        open(bytes, delimited, Restart::default())?.reader.read_to_end(&mut out).map_err(|error| fault(&error))?;
        Ok(out)
    }

    #[test]
    fn reading_begins_again_at_any_member() {
        let parts: Vec<Vec<u8>> = (0..50).map(|n| format!("{{\"n\":{n}}}\n").repeat(n * 37 % 400).into_bytes()).collect();
        let sent: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
        let plain: Vec<u8> = parts.concat();
        let mut inflated = open(sent.clone(), true, Restart::default()).unwrap();
        let members = inflated.members.take().unwrap();
        let (mut passed, mut found) = (0, 0);
        let mut buffer = [0; 1000];
        loop {
            let member = members.before(passed).unwrap();
            assert!(member.inflated <= passed);
            assert_eq!(member.crc, crc32fast::hash(&plain[..member.inflated as usize]));
            let rest = open(sent[member.sent as usize..].to_vec(), true, member).map(|mut inflated| {
                let mut rest = Vec::new();
                inflated.reader.read_to_end(&mut rest).unwrap();
                rest
            });
            assert_eq!(rest.unwrap(), plain[member.inflated as usize..]);
            found += usize::from(member.inflated > 0);
            match inflated.reader.read(&mut buffer).unwrap() {
                0 => break,
                count => passed += count as u64,
            }
        }
        assert_eq!(passed as usize, plain.len());
        assert!(found > 50);
    }

    #[test]
    fn content_decides_and_members_follow_one_another() {
        assert_eq!(read(b"{}\n".to_vec(), true).unwrap(), b"{}\n");
        assert_eq!(read(b"".to_vec(), true).unwrap(), b"");
        assert_eq!(read(gzip(b"{}\n"), false), Err(SourceFault::Unframed));
        assert_eq!(read([gzip(b"{1}\n"), gzip(b""), gzip(b"{2}\n")].concat(), true).unwrap(), b"{1}\n{2}\n");
    }

    #[test]
    fn what_is_cut_or_damaged_is_an_error() {
        let whole = gzip(&b"{\"a\":1}\n".repeat(1000));
        for cut in 2..whole.len() {
            assert!(matches!(read(whole[..cut].to_vec(), true), Err(SourceFault::Truncated(_))), "cut at {cut}");
        }
        let mut damaged = whole.clone();
        let at = damaged.len() - 6;
        damaged[at] ^= 1;
        assert!(matches!(read(damaged, true), Err(SourceFault::Gzip(_))));
        assert!(matches!(read([whole, b"garbage behind the trailer".to_vec()].concat(), true), Err(SourceFault::Gzip(_))));
        assert_eq!(read(b"{}\n".to_vec(), false), Err(SourceFault::Unframed));

        assert_eq!(read(b"\x00\x01".to_vec(), true), Err(SourceFault::NotNdjson));
        assert_eq!(read(b"\xff\xfe{".to_vec(), true), Err(SourceFault::NotNdjson));
    }
}

//! gzip or plain, told by content: one or many members, each to its trailer. Errors of the source pass through unchanged.

use super::Interrupt;
use super::opened::Opened;
use crate::error::SourceFault;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// Compressed bytes held at a time.
const BUFFER: usize = 128 * 1024;
/// Bytes by which a source is judged: a byte order mark and one more.
const HEAD: u64 = 4;

/// A fault of the source inside an `io::Error`, so that it survives a reader's layers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub SourceFault);

impl Broken {
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

/// The plain bytes of an opened source.
pub fn inflate(opened: Opened, interrupt: Interrupt) -> Result<Box<dyn Read + Send>, SourceFault> {
    let mut guarded = Guarded { reader: opened.reader, interrupt };
    // A connection may bring its first bytes one by one.
    let mut head = Vec::new();
    guarded.by_ref().take(HEAD).read_to_end(&mut head).map_err(|error| fault(&error))?;
    let raw = BufReader::with_capacity(BUFFER, io::Cursor::new(head.clone()).chain(guarded));
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(Gzip(MultiGzDecoder::new(raw))));
    }
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&head);
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(byte) if byte.is_ascii_control() || !byte.is_ascii() => Err(SourceFault::NotNdjson),
        _ if !opened.delimited => Err(SourceFault::Truncated("the server says neither its length nor where it ends".to_owned())),
        _ => Ok(Box::new(raw)),
    }
}

/// A reader that ends with an error once its operation was interrupted.
struct Guarded {
    reader: Box<dyn Read + Send>,
    interrupt: Interrupt,
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.is_stopped() {
            return Err(Broken::io(SourceFault::Read("interrupted".to_owned())));
        }
        self.reader.read(buffer).map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<Broken>() => error,
            _ => Broken::io(SourceFault::Read(error.to_string())),
        })
    }
}

/// Names what the decoder says: everything that is not the source's own fault is gzip's.
struct Gzip<R>(MultiGzDecoder<R>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<Broken>() => error,
            _ if error.kind() == ErrorKind::UnexpectedEof => Broken::io(SourceFault::Truncated("the gzip trailer is missing".to_owned())),
            _ => Broken::io(SourceFault::Gzip(error.to_string())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::{Cursor, Write};

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: Vec<u8>, delimited: bool) -> Result<Vec<u8>, SourceFault> {
        let mut out = Vec::new();
        let mut reader = inflate(Opened { reader: Box::new(Cursor::new(bytes)), delimited }, Interrupt::new())?;
        reader.read_to_end(&mut out).map_err(|error| fault(&error))?;
        Ok(out)
    }

    #[test]
    fn content_decides_and_members_follow_one_another() {
        assert_eq!(read(b"{}\n".to_vec(), true).unwrap(), b"{}\n");
        assert_eq!(read(b"".to_vec(), true).unwrap(), b"");
        assert_eq!(read(gzip(b"{}\n"), false).unwrap(), b"{}\n");
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
        assert!(matches!(read(b"{}\n".to_vec(), false), Err(SourceFault::Truncated(_))));

        assert_eq!(read(b"\x00\x01".to_vec(), true), Err(SourceFault::NotNdjson));
        assert_eq!(read(b"\xff\xfe{".to_vec(), true), Err(SourceFault::NotNdjson));
    }
}

//! The lines of an NDJSON stream, cut into blocks of whole lines. Lines end with `\n`; `\r`, blank lines and a byte order
//! mark are skipped; the last line may lack its end.

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};

/// Whole lines, and where they stand in the source.
#[derive(Debug)]
pub struct Block {
    pub bytes: Vec<u8>,
    /// Number of the first line, from 1.
    pub first_line: u64,
    /// Line ends in it.
    pub line_count: usize,
    /// Bytes of the source before it.
    pub offset: u64,
    /// Whether it holds the beginning of a single line, which is longer than allowed or than memory.
    pub overlong: bool,
}

/// How far a source has been cut into blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Line ends before it.
    pub lines: u64,
    /// Bytes before it, and their CRC-32.
    pub offset: u64,
    pub crc: u32,
}

/// A line of a block.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    pub bytes: &'a [u8],
    pub number: u64,
    /// Bytes of the source before the line.
    pub offset: u64,
}

impl Block {
    /// The lines that hold something.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let mut start = 0;
        let mut number = self.first_line;
        std::iter::from_fn(move || {
            while start < self.bytes.len() {
                let rest = &self.bytes[start..];
                let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                let line = Line { bytes: &rest[..end], number, offset: self.offset + start as u64 };
                start += end + 1;
                number += 1;
                if self.overlong {
                    start = self.bytes.len();
                    return Some(Line { bytes: &self.bytes, ..line });
                }
                if !line.bytes.iter().all(u8::is_ascii_whitespace) {
                    return Some(line);
                }
            }
            None
        })
    }
}

/// A reader that ends behind the line in which the byte before `end` lies, so that no line that begins before `end` is cut.
pub struct Until<R> {
    reader: R,
    /// Bytes of the source before what comes next, where a line begins at first.
    at: u64,
    end: u64,
    ended: bool,
}

impl<R> Until<R> {
    /// Reads from byte `at` of the source, where a line begins, to the end of the line that holds byte `end - 1`.
    pub fn new(reader: R, at: u64, end: u64) -> Until<R> {
        Until { reader, at, end, ended: at >= end }
    }
}

impl<R: Read> Read for Until<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let count = self.reader.read(buffer)?;
        // The first line end that is the last byte or lies behind it.
        let from = usize::try_from((self.end - 1).saturating_sub(self.at)).unwrap_or(count).min(count);
        self.at += count as u64;
        match memchr::memchr(b'\n', &buffer[from..count]) {
            Some(found) => {
                self.ended = true;
                Ok(from + found + 1)
            }
            None => Ok(count),
        }
    }
}

/// Bytes that are kept of a line that is too long.
const KEPT: usize = 64 * 1024;
/// Lines of a block.
const MOST_LINES: usize = 8192;
/// Bytes of the first block.
const FIRST: usize = 64 * 1024;

/// Cuts a reader into blocks.
pub struct Blocks<R> {
    reader: R,
    /// Of the next block: it doubles up to `block_size`, so that the first comes soon.
    next_size: usize,
    block_size: usize,
    max_line: usize,
    /// The beginning of a line whose end has not been read.
    rest: Vec<u8>,
    next_line: u64,
    offset: u64,
    /// Of all before `offset`.
    crc: Hasher,
    started: bool,
    ended: bool,
    /// Whether what comes next is the end of a line that was too long.
    within_overlong: bool,
}

impl<R: Read> Blocks<R> {
    /// Blocks of about `block_size` bytes, larger only for a line that is; lines of at most `max_line` bytes.
    pub fn new(reader: R, block_size: usize, max_line: usize) -> Blocks<R> {
        Blocks::resume(reader, block_size, max_line, Position::default())
    }

    /// The same where `reader` goes on behind what was cut before.
    pub fn resume(reader: R, block_size: usize, max_line: usize, from: Position) -> Blocks<R> {
        // The first block must show whether there is a byte order mark.
        let block_size = block_size.max(3);
        let next_size = block_size.min(FIRST);
        Blocks {
            reader,
            next_size,
            block_size,
            max_line,
            rest: Vec::new(),
            next_line: from.lines + 1,
            offset: from.offset,
            crc: Hasher::new_with_initial(from.crc),
            started: from.offset > 0,
            ended: false,
            within_overlong: false,
        }
    }

    /// How far the blocks so far go. Behind a line that is too long it is known once the next block is there.
    pub fn position(&self) -> Option<Position> {
        let position = Position { lines: self.next_line - 1, offset: self.offset, crc: self.crc.clone().finalize() };
        (!self.within_overlong).then_some(position)
    }

    /// The next block; None at the end of the source.
    pub fn next_block(&mut self) -> io::Result<Option<Block>> {
        self.pass_overlong()?;
        let mut bytes = std::mem::take(&mut self.rest);
        // Everything before `scanned` holds no line end.
        let mut scanned = 0;
        let mut target = self.next_size.max(bytes.len() + self.next_size / 2);
        self.next_size = self.block_size.min(2 * self.next_size);
        loop {
            // Lines that were left over are enough for a block.
            let has_line = memchr::memchr(b'\n', &bytes[scanned..]).is_some();
            if !has_line && !self.fill(&mut bytes, target)? {
                return Ok(Some(self.too_long(bytes)));
            }
            if !self.started {
                self.started = true;
                if bytes.starts_with(b"\xEF\xBB\xBF") {
                    self.crc.update(&bytes[..3]);
                    bytes.drain(..3);
                    self.offset = 3;
                }
            }
            let end = memchr::memrchr(b'\n', &bytes[scanned..]).map(|at| scanned + at + 1);
            let most = memchr::memchr_iter(b'\n', &bytes[scanned..]).nth(MOST_LINES - 1).map(|at| scanned + at + 1);
            match most.or(end) {
                _ if self.ended && most.is_none() => break,
                Some(end) => {
                    self.rest.extend_from_slice(&bytes[end..]);
                    bytes.truncate(end);
                    break;
                }
                None if bytes.len() > self.max_line => return Ok(Some(self.too_long(bytes))),
                None => {
                    scanned = bytes.len();
                    target = bytes.len() + (bytes.len() / 2).max(self.block_size);
                }
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let line_count = memchr::memchr_iter(b'\n', &bytes).count();
        let block = Block { bytes, first_line: self.next_line, line_count, offset: self.offset, overlong: false };
        self.next_line += line_count as u64;
        self.offset += block.bytes.len() as u64;
        self.crc.update(&block.bytes);
        Ok(Some(block))
    }

    /// The beginning of a line that has no end in sight.
    fn too_long(&mut self, mut bytes: Vec<u8>) -> Block {
        self.within_overlong = true;
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        self.crc.update(&bytes);
        bytes.truncate(KEPT);
        bytes.shrink_to_fit();
        Block { bytes, first_line: self.next_line, line_count: 0, offset, overlong: true }
    }

    /// Reads to the end of a line that was too long.
    fn pass_overlong(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.within_overlong {
            bytes.clear();
            self.fill(&mut bytes, KEPT)?;
            let end = memchr::memchr(b'\n', &bytes);
            let passed = end.map_or(bytes.len(), |end| end + 1);
            self.offset += passed as u64;
            self.crc.update(&bytes[..passed]);
            if let Some(end) = end {
                self.rest.extend_from_slice(&bytes[end + 1..]);
                self.next_line += 1;
            }
            self.within_overlong = end.is_none() && !self.ended;
        }
        Ok(())
    }

    /// Reads until `bytes` has `target` bytes or the source ends. False when there is no memory for them.
    fn fill(&mut self, bytes: &mut Vec<u8>, target: usize) -> io::Result<bool> {
        let target = target.min(self.max_line.saturating_add(self.block_size));
        if bytes.len() >= target || self.ended {
            return Ok(true);
        }
        if bytes.try_reserve_exact(target - bytes.len()).is_err() {
            return Ok(false);
        }
        let wanted = target - bytes.len();
        let read = self.reader.by_ref().take(wanted as u64).read_to_end(bytes)?;
        self.ended = read < wanted;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8], block_size: usize) -> Vec<(u64, u64, String)> {
        let mut blocks = Blocks::new(input, block_size, 1000);
        let mut found = Vec::new();
        while let Some(block) = blocks.next_block().unwrap() {
            found.extend(block.lines().map(|l| (l.number, l.offset, String::from_utf8(l.bytes.to_vec()).unwrap())));
        }
        found
    }

    #[test]
    fn every_line_is_found_whatever_the_block_size() {
        let input = b"\xEF\xBB\xBF{a}\r\n\n  \n{bb}\n{ccc}";
        for size in 1..30 {
            let expected = vec![(1, 3, "{a}\r".to_owned()), (4, 12, "{bb}".to_owned()), (5, 17, "{ccc}".to_owned())];
            assert_eq!(lines(input, size), expected, "block size {size}");
        }
        assert_eq!(lines(b"", 10), vec![]);
        assert_eq!(lines(b"a\n", 10), vec![(1, 0, "a".to_owned())]);
    }

    #[test]
    fn a_part_ends_with_the_last_line_that_begins_in_it() {
        let input = b"{a}\n\n{bb}\r\n{ccc}\n{d}";
        let starts = [0, 4, 5, 11, 17];
        for end in 1..=input.len() as u64 {
            for size in 1..8 {
                let mut until = Until::new(input.as_slice(), 0, end);
                let (mut all, mut buffer) = (Vec::new(), vec![0; size]);
                while let count @ 1.. = until.read(&mut buffer).unwrap() {
                    all.extend_from_slice(&buffer[..count]);
                }
                let expected = starts.iter().find(|&&start| start as u64 >= end).map_or(input.len(), |start| *start);
                assert_eq!(all.len(), expected, "end {end}, {size} bytes at a time");
            }
        }
        assert_eq!(Until::new(input.as_slice(), 11, 5).read(&mut [0; 9]).unwrap(), 0);
    }

    #[test]
    fn cutting_goes_on_at_any_position() {
        let long = "y".repeat(150_000);
        let input = format!("\u{FEFF}{{a}}\r\n\n{{bb}}\n{long}\n{{ccc}}\n  \n{{d}}").into_bytes();
        for size in [1, 5, 9, 100, 20_000] {
            let all = lines(&input, size);
            let mut blocks = Blocks::new(input.as_slice(), size, 1000);
            let mut before = 0;
            while let Some(block) = blocks.next_block().unwrap() {
                before += block.lines().count();
                let Some(position) = blocks.position() else { continue };
                assert_eq!(position.crc, crc32fast::hash(&input[..position.offset as usize]));
                let mut rest = Blocks::resume(&input[position.offset as usize..], size, 1000, position);
                let mut found = Vec::new();
                while let Some(block) = rest.next_block().unwrap() {
                    found.extend(block.lines().map(|line| (line.number, line.offset)));
                }
                let expected: Vec<(u64, u64)> = all[before..].iter().map(|(number, offset, _)| (*number, *offset)).collect();
                assert_eq!(found, expected, "block size {size}, from {position:?}");
                assert_eq!(rest.position().unwrap().crc, crc32fast::hash(&input));
            }
        }
    }

    #[test]
    fn a_line_past_the_limit_is_cut_without_reading_it_all() {
        let endless = io::repeat(b'x');
        let mut blocks = Blocks::new(b"{}\n".chain(endless), 100, 1000);
        assert!(!blocks.next_block().unwrap().unwrap().overlong);
        let block = blocks.next_block().unwrap().unwrap();
        assert_eq!((block.overlong, block.first_line, block.offset), (true, 2, 3));
    }

    #[test]
    fn a_long_line_of_nothing_is_a_line() {
        let input = format!("a\n{}{{}}\nb", " ".repeat(100_000));
        let mut blocks = Blocks::new(input.as_bytes(), 64, 1000);
        let mut lines = Vec::new();
        while let Some(block) = blocks.next_block().unwrap() {
            lines.extend(block.lines().map(|line| (line.number, line.offset)));
        }
        assert_eq!(lines, [(1, 0), (2, 2), (3, 100_005)]);
    }

    #[test]
    fn short_lines_are_few_in_a_block() {
        let input = "x\n".repeat(100_000);
        let mut blocks = Blocks::new(input.as_bytes(), 1 << 19, 1000);
        let mut next = 1;
        while let Some(block) = blocks.next_block().unwrap() {
            assert!(block.line_count <= MOST_LINES && blocks.rest.len() < 1 << 20);
            for line in block.lines() {
                assert_eq!((line.number, line.offset), (next, 2 * (next - 1)));
                next += 1;
            }
        }
        assert_eq!(next, 100_001);
    }

    #[test]
    fn what_follows_a_line_that_is_too_long_is_found() {
        let long = "y".repeat(200_000);
        for (input, found) in [
            (format!("a\n{long}\nb\n\nc"), vec![(1, 0), (2, 2), (3, 200_003), (5, 200_006)]),
            (format!("{long}\n{long}\nb\n"), vec![(1, 0), (2, 200_001), (3, 400_002)]),
            (format!("a\n{long}"), vec![(1, 0), (2, 2)]),
            (format!("a\n{long}\n"), vec![(1, 0), (2, 2)]),
        ] {
            for size in [1, 7, 64, 1000, 5000, 300_000] {
                let mut blocks = Blocks::new(input.as_bytes(), size, 1000);
                let mut lines = Vec::new();
                while let Some(block) = blocks.next_block().unwrap() {
                    assert!(block.overlong || block.lines().all(|line| line.bytes.len() < 200_000 || size > 200_000));
                    lines.extend(block.lines().map(|line| (line.number, line.offset)));
                }
                assert_eq!(lines, found, "block size {size}");
            }
        }
    }
}

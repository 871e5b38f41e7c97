//! PostgreSQL's own compression (src/common/pg_lzcompress.c, default strategy), byte-equal to the server's: that one keeps its
//! tables in globals, so threads cannot call it.

/// How far back a match may lie, and how many places are remembered.
const HISTORY: usize = 4096;
const LARGEST_OFFSET: usize = 0x0fff;
const LONGEST_MATCH: usize = 273;
/// The default strategy: shortest input, least saving in percent, bytes within which a match must come.
const SHORTEST_INPUT: usize = 32;
const LEAST_SAVING: usize = 25;
const FIRST_SUCCESS_BY: usize = 1024;
const GOOD_MATCH: usize = 128;
const GOOD_DROP: usize = 10;
/// Hash slots for the longest inputs.
const SLOTS: usize = 8192;
/// Index that stands for no entry.
const NONE: u16 = 0;

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    next: u16,
    prev: u16,
    slot: u16,
    position: u32,
}

/// The tables of a compression, reused from one to the next.
#[derive(Debug)]
pub struct Pglz {
    starts: Box<[u16; SLOTS]>,
    /// Twice what is used, so that a mask takes the place of a bounds check.
    entries: Box<[Entry; 2 * HISTORY]>,
}

impl Default for Pglz {
    fn default() -> Pglz {
        Pglz { starts: Box::new([0; SLOTS]), entries: Box::new([Entry::default(); 2 * HISTORY]) }
    }
}

/// Where control bits go: every eighth item is preceded by a byte that says which items are matches.
struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    control_at: usize,
    control: u8,
    bit: u8,
}

impl Output<'_> {
    fn next_item(&mut self) {
        if self.bit == 0 {
            self.flush();
            self.control_at = self.bytes.len();
            self.bytes.push(0);
            self.control = 0;
            self.bit = 1;
        }
    }

    fn flush(&mut self) {
        if let Some(at) = self.bytes.get_mut(self.control_at) {
            *at = self.control;
        }
    }

    fn literal(&mut self, byte: u8) {
        self.next_item();
        self.bytes.push(byte);
        self.bit <<= 1;
    }

    fn tag(&mut self, length: usize, offset: usize) {
        self.next_item();
        self.control |= self.bit;
        self.bit <<= 1;
        let high = ((offset & 0xf00) >> 4) as u8;
        if length > 17 {
            self.bytes.extend_from_slice(&[high | 0x0f, (offset & 0xff) as u8, (length - 18) as u8]);
        } else {
            self.bytes.extend_from_slice(&[high | (length - 3) as u8, (offset & 0xff) as u8]);
        }
    }
}

impl Pglz {
    /// Appends the compressed bytes to `out`. False when they would not save a quarter; then `out` holds rubbish.
    pub fn compress(&mut self, source: &[u8], out: &mut Vec<u8>) -> bool {
        if source.len() < SHORTEST_INPUT || source.len() > i32::MAX as usize {
            return false;
        }
        let most = if source.len() > (i32::MAX / 100) as usize {
            source.len() / 100 * (100 - LEAST_SAVING)
        } else {
            source.len() * (100 - LEAST_SAVING) / 100
        };
        let mask = [128, 256, 512, 1024].iter().position(|&limit| source.len() < limit).map_or(SLOTS - 1, |step| (512 << step) - 1);
        self.starts[..=mask].fill(0);
        let begin = out.len();
        // Without memory it stays as it is.
        if out.try_reserve(source.len()).is_err() {
            return false;
        }
        let mut output = Output { bytes: out, control_at: usize::MAX, control: 0, bit: 0 };
        let mut history = History { tables: self, source, mask, next: 1, recycle: false };
        let mut at = 0;
        let mut matched = false;
        while at < source.len() {
            let written = output.bytes.len() - begin;
            if written >= most || (!matched && written >= FIRST_SUCCESS_BY) {
                return false;
            }
            let slot = history.slot(at);
            match history.find(at, slot) {
                Some((length, offset)) => {
                    output.tag(length, offset);
                    history.add(at, slot);
                    for at in at + 1..at + length {
                        history.add(at, history.slot(at));
                    }
                    at += length;
                    matched = true;
                }
                None => {
                    output.literal(source[at]);
                    history.add(at, slot);
                    at += 1;
                }
            }
        }
        output.flush();
        out.len() - begin < most
    }
}

struct History<'a> {
    tables: &'a mut Pglz,
    source: &'a [u8],
    mask: usize,
    next: u16,
    recycle: bool,
}

impl History<'_> {
    /// The slot of the four bytes at a place. The server reads them as signed characters.
    #[inline(always)]
    fn slot(&self, at: usize) -> usize {
        let signed = |byte: u8| i32::from(byte as i8);
        let hash = match self.source[at..] {
            [a, b, c, d, ..] => (signed(a) << 6) ^ (signed(b) << 4) ^ (signed(c) << 2) ^ signed(d),
            [a, ..] => signed(a),
            [] => 0,
        };
        hash as usize & self.mask
    }

    #[inline(always)]
    fn entry(&mut self, index: u16) -> &mut Entry {
        &mut self.tables.entries[usize::from(index) & (2 * HISTORY - 1)]
    }

    #[inline(always)]
    fn start(&mut self, slot: usize) -> &mut u16 {
        &mut self.tables.starts[slot & (SLOTS - 1)]
    }

    #[inline(always)]
    fn add(&mut self, at: usize, slot: usize) {
        let new = self.next;
        if self.recycle {
            let old = *self.entry(new);
            if old.prev == NONE {
                *self.start(usize::from(old.slot)) = old.next;
            } else {
                self.entry(old.prev).next = old.next;
            }
            self.entry(old.next).prev = old.prev;
        }
        let first = std::mem::replace(self.start(slot), new);
        *self.entry(new) = Entry { next: first, prev: NONE, slot: slot as u16, position: at as u32 };
        self.entry(first).prev = new;
        self.next += 1;
        if usize::from(self.next) > HISTORY {
            self.next = 1;
            self.recycle = true;
        }
    }

    /// The longest match found with fair effort: its length and how far back it lies.
    #[inline(always)]
    fn find(&mut self, at: usize, slot: usize) -> Option<(usize, usize)> {
        let source = self.source;
        let ahead = &source[at..source.len().min(at + LONGEST_MATCH)];
        let mut good_match = GOOD_MATCH;
        let (mut length, mut offset) = (0, 0);
        let mut entry = *self.start(slot);
        while entry != NONE {
            let Entry { next, position, .. } = *self.entry(entry);
            let position = position as usize;
            if at - position >= LARGEST_OFFSET {
                break;
            }
            let behind = &source[position..position + ahead.len()];
            // Only what is longer than the best so far counts, and for that this byte must agree.
            if length < ahead.len() && ahead[length] == behind[length] {
                let same = common_prefix(ahead, behind);
                if same > length {
                    (length, offset) = (same, at - position);
                }
            }
            entry = next;
            if entry != NONE {
                if length >= good_match {
                    break;
                }
                good_match -= good_match * GOOD_DROP / 100;
            }
        }
        (length > 2).then_some((length, offset))
    }
}

/// Bytes that two slices of equal length begin with alike.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (words_a, _) = a.as_chunks::<8>();
    let (words_b, _) = b.as_chunks::<8>();
    for (index, (x, y)) in words_a.iter().zip(words_b).enumerate() {
        let differing = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differing != 0 {
            return index * 8 + differing.trailing_zeros() as usize / 8;
        }
    }
    let whole = words_a.len() * 8;
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(x, y)| x == y).count()
}

/// Appends the `size` bytes that were compressed. None when the input is not what a compression made.
pub fn decompress(mut bytes: &[u8], size: usize, out: &mut Vec<u8>) -> Option<()> {
    let end = out.len() + size;
    out.try_reserve(size).ok()?;
    let begin = out.len();
    while out.len() < end {
        let (&control, rest) = bytes.split_first()?;
        bytes = rest;
        for bit in 0..8 {
            if out.len() >= end {
                break;
            }
            if control & (1 << bit) == 0 {
                let (&literal, rest) = bytes.split_first()?;
                out.push(literal);
                bytes = rest;
                continue;
            }
            let [first, second, rest @ ..] = bytes else { return None };
            let offset = (usize::from(first & 0xf0) << 4) | usize::from(*second);
            let mut length = usize::from(first & 0x0f) + 3;
            bytes = rest;
            if length == 18 {
                let (&more, rest) = bytes.split_first()?;
                length += usize::from(more);
                bytes = rest;
            }
            let from = out.len().checked_sub(offset).filter(|&from| from >= begin && offset > 0)?;
            let length = length.min(end - out.len());
            if offset >= length {
                out.extend_from_within(from..from + length);
            } else {
                for index in from..from + length {
                    out.push(out[index]);
                }
            }
        }
    }
    bytes.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompress(bytes: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        super::decompress(bytes, size, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let mut pglz = Pglz::default();
        for source in [
            "abcd".repeat(100),
            "x".repeat(100_000),
            (0..5000).map(|n| format!("{{\"id\":{n},\"name\":\"é{}\"}}", n % 17)).collect(),
            "the quick brown fox jumps over the lazy dog, the quick brown fox".repeat(3),
        ] {
            let mut out = Vec::new();
            assert!(pglz.compress(source.as_bytes(), &mut out));
            assert_eq!(decompress(&out, source.len()), source.as_bytes());
            for cut in (0..out.len()).step_by(97) {
                assert!(super::decompress(&out[..cut], source.len(), &mut Vec::new()).is_none());
            }
        }
        assert!(!pglz.compress(b"short", &mut Vec::new()));
        let mut state = 1u32;
        let noise: Vec<u8> = (0..10_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        assert!(!pglz.compress(&noise, &mut Vec::new()));
    }
}

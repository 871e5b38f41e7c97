//! Finds the bytes that end a plain run of a JSON string: quotes, backslashes, control characters.

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Where the first such byte stands. Eight at a time: each byte of `found` has its high bit set when its byte of the word
/// is a quote, a backslash or below 0x20 (and perhaps without cause behind the first that is; the lowest is always right).
#[inline]
pub fn special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let (quote, backslash) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (zero(quote) | zero(backslash) | control) & HIGH;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let behind = bytes.len() - rest.len();
    rest.iter().position(|&byte| is_special(byte)).map(|at| behind + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_needs_an_escape_is_found() {
        for length in 0..40 {
            for at in 0..length {
                for byte in 0..=255u8 {
                    for other in [b'a', 0x7f, 0x80, 0xff, b'!', b'#', b'[', b']', b' '] {
                        let mut bytes = vec![other; length];
                        bytes[at] = byte;
                        let expected = is_special(byte).then_some(at);
                        assert_eq!(special(&bytes), expected, "{length} {at} {byte:x} {other:x}");
                        bytes.push(b'"');
                        assert_eq!(special(&bytes), expected.or(Some(length)));
                    }
                }
            }
        }
    }
}

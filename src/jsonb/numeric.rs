//! A JSON number literal and PostgreSQL's `numeric` bytes (src/backend/utils/adt/numeric.c), both ways. The scale is kept:
//! `1.10` stays `1.10`; an exponent is worked in, so `1.0e3` is `1000`.

/// Decimal digits in one base-10000 digit.
const DEC_DIGITS: i64 = 4;
/// Digits after the point that the format can say.
const MAX_SCALE: i64 = 0x3FFF;
const SHORT: u16 = 0x8000;
const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_SCALE_SHIFT: u16 = 7;
const SHORT_SCALE_MAX: i64 = 0x3F;
const SHORT_WEIGHT_SIGN: u16 = 0x0040;
const SHORT_WEIGHT: std::ops::RangeInclusive<i64> = -64..=63;
const LONG_NEGATIVE: u16 = 0x4000;
const SIGN_MASK: u16 = 0xC000;

/// A literal taken apart: digits without zeros in front, where the point is, the scale.
struct Parts<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
    /// Digits after the point when written out.
    scale: i64,
}

/// None when the exponent itself is out of range.
fn parts(literal: &str) -> Option<Parts<'_>> {
    let negative = literal.starts_with('-');
    let digits = literal.strip_prefix('-').unwrap_or(literal);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        // No exponent that i32 cannot hold can lead to a value in range.
        Some((mantissa, exponent)) => (mantissa, i64::from(exponent.parse::<i32>().ok()?)),
        None => (digits, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if exponent.abs() >= i64::from(i32::MAX / 2) {
        return None;
    }
    let scale = (fraction.len() as i64 - exponent).max(0);
    Some(Parts { negative, integer: integer.as_bytes(), fraction: fraction.as_bytes(), exponent, scale })
}

impl Parts<'_> {
    fn digit(&self, index: usize) -> u8 {
        let digits = self.integer.len();
        if index < digits { self.integer[index] - b'0' } else { self.fraction[index - digits] - b'0' }
    }

    fn len(&self) -> usize {
        self.integer.len() + self.fraction.len()
    }

    /// First and last digit that is not zero, and the power of ten of the first. None for zero.
    fn significant(&self) -> Option<(usize, usize, i64)> {
        let first = (0..self.len()).find(|&i| self.digit(i) != 0)?;
        let last = (first..self.len()).rev().find(|&i| self.digit(i) != 0)?;
        Some((first, last, self.integer.len() as i64 - 1 - first as i64 + self.exponent))
    }
}

/// The byte of a literal that makes PostgreSQL say "value overflows numeric format" (22003), if any.
pub fn check(literal: &str) -> Option<usize> {
    // The common case, without a look at the digits.
    if literal.len() < 60 && !literal.contains(['e', 'E']) {
        return None;
    }
    let Some(parts) = parts(literal) else { return Some(0) };
    if parts.scale > MAX_SCALE {
        return Some(0);
    }
    match parts.significant() {
        Some((_, _, power)) => {
            let weight = power.div_euclid(DEC_DIGITS);
            (!(i64::from(i16::MIN)..=i64::from(i16::MAX)).contains(&weight)).then_some(0)
        }
        None => None,
    }
}

/// Bytes of a literal that `check` has passed when it is written out, or a few more.
pub fn written_size(literal: &str) -> usize {
    let Some(parts) = parts(literal) else { return 0 };
    let before = parts.significant().map_or(1, |(_, _, power)| power.max(0) + 1);
    usize::try_from(before + parts.scale + 2).unwrap_or_default()
}

/// Appends the varlena that `numeric_in` makes of a literal which `check` has passed: 4-byte header, then the number.
pub fn encode(literal: &str, out: &mut Vec<u8>) {
    let Some(parts) = parts(literal) else { return };
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let (first, last, power) = parts.significant().unwrap_or((1, 0, 0));
    let zero = first > last;
    let weight = power.div_euclid(DEC_DIGITS);
    let negative = parts.negative && !zero;
    if parts.scale <= SHORT_SCALE_MAX && SHORT_WEIGHT.contains(&weight) {
        let header = SHORT
            | if negative { SHORT_NEGATIVE } else { 0 }
            | ((parts.scale as u16) << SHORT_SCALE_SHIFT)
            | if weight < 0 { SHORT_WEIGHT_SIGN } else { 0 }
            | (weight as u16 & 0x3F);
        out.extend_from_slice(&header.to_ne_bytes());
    } else {
        let header = if negative { LONG_NEGATIVE } else { 0 } | parts.scale as u16;
        out.extend_from_slice(&header.to_ne_bytes());
        out.extend_from_slice(&(weight as i16).to_ne_bytes());
    }
    if !zero {
        // Digits of the first group: from the top of its base-10000 place down to its last decimal place.
        let mut in_group = DEC_DIGITS - 1 - power.rem_euclid(DEC_DIGITS);
        let mut group: i16 = 0;
        for index in first..=last {
            group = group * 10 + i16::from(parts.digit(index));
            in_group += 1;
            if in_group == DEC_DIGITS {
                out.extend_from_slice(&group.to_ne_bytes());
                group = 0;
                in_group = 0;
            }
        }
        if in_group > 0 {
            for _ in in_group..DEC_DIGITS {
                group *= 10;
            }
            out.extend_from_slice(&group.to_ne_bytes());
        }
    }
    let size = (((out.len() - start) as u32) << 2).to_le_bytes();
    out[start..start + 4].copy_from_slice(&size);
}

/// A numeric as it lies behind its varlena header, taken apart.
pub struct Numeric<'a> {
    negative: bool,
    weight: i64,
    scale: usize,
    digits: &'a [u8],
}

/// Reads what follows the varlena header. None for NaN, infinities and bytes that are no numeric.
pub fn decode(bytes: &[u8]) -> Option<Numeric<'_>> {
    let header = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    if header & SIGN_MASK == SIGN_MASK {
        return None;
    }
    if header & SHORT != 0 {
        let low = i64::from(header & 0x3F);
        return Some(Numeric {
            negative: header & SHORT_NEGATIVE != 0,
            weight: if header & SHORT_WEIGHT_SIGN != 0 { low - 64 } else { low },
            scale: usize::from((header >> SHORT_SCALE_SHIFT) & SHORT_SCALE_MAX as u16),
            digits: &bytes[2..],
        });
    }
    Some(Numeric {
        negative: header & SIGN_MASK == LONG_NEGATIVE,
        weight: i64::from(i16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?)),
        scale: usize::from(header & MAX_SCALE as u16),
        digits: &bytes[4..],
    })
}

impl Numeric<'_> {
    /// Bytes that the literal takes at most.
    pub fn text_len(&self) -> usize {
        2 + (self.weight.max(0) as usize + 1) * DEC_DIGITS as usize + 1 + self.scale
    }

    /// The base-10000 digit of a place; places that are not stored are zero.
    fn group(&self, place: i64) -> i16 {
        let index = self.weight - place;
        if index < 0 {
            return 0;
        }
        let at = index as usize * 2;
        self.digits.get(at..at + 2).map_or(0, |b| i16::from_ne_bytes([b[0], b[1]]).clamp(0, 9999))
    }

    /// Gives the literal, character by character, as `numeric_out` writes it.
    pub fn write(&self, mut push: impl FnMut(char)) {
        if self.negative {
            push('-');
        }
        let mut leading = true;
        for place in (0..=self.weight).rev() {
            for digit in decimals(self.group(place)) {
                leading &= digit == '0';
                if !leading {
                    push(digit);
                }
            }
        }
        if leading {
            push('0');
        }
        if self.scale > 0 {
            push('.');
            let places = self.scale.div_ceil(DEC_DIGITS as usize) as i64;
            let digits = (1..=places).flat_map(|place| decimals(self.group(-place)));
            digits.take(self.scale).for_each(push);
        }
    }
}

/// The four decimal digits of a base-10000 digit.
fn decimals(group: i16) -> [char; 4] {
    [group / 1000, group / 100 % 10, group / 10 % 10, group % 10].map(|digit| char::from(b'0' + digit as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(literal: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(check(literal), None, "{literal}");
        encode(literal, &mut out);
        let mut text = String::new();
        decode(&out[4..]).unwrap().write(|c| text.push(c));
        text
    }

    #[test]
    fn scale_and_value_survive() {
        for literal in
            ["0", "1", "-1", "1.10", "0.00", "10000", "99999999", "-0.00012", "123456789.987654321", "1000000000000000000000000.5"]
        {
            assert_eq!(round(literal), literal);
        }
        for (literal, written) in [
            ("1.0e3", "1000"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("1e-3", "0.001"),
            ("12.5E+1", "125"),
            ("0e5", "0"),
            ("1.50e1", "15.0"),
            ("0e-3", "0.000"),
        ] {
            assert_eq!(round(literal), written, "{literal}");
        }
        for literal in ["1.0e3", "1e-3", "-12.5E+1", "0e5", "0e-3", "1e1000", "1e-1000", "123.4e5"] {
            assert!((round(literal).len()..=round(literal).len() + 3).contains(&written_size(literal)), "{literal}");
        }
        assert_eq!(round("1e1000").len(), 1001);
        assert_eq!(round("1e-1000").len(), 1002);
    }

    #[test]
    fn what_numeric_cannot_hold_is_refused() {
        assert_eq!(check("1e131071"), None);
        for literal in ["1e131072", "1e-16384", "0e-16384", "1e99999999999999999999", "1e1073741823"] {
            assert_eq!(check(literal), Some(0), "{literal}");
        }
        assert_eq!(check("1e-16383"), None);
    }
}

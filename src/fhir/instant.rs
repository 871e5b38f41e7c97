//! A FHIR instant from PostgreSQL's timestamptz, and back.

/// Days from 0000-03-01 to 2000-01-01, PostgreSQL's epoch.
const EPOCH_DAYS: i64 = 730_425;
const DAY: i64 = 86_400_000_000;

/// `2021-06-10T08:26:10.707454Z`. Without the formatter, which took a tenth of a dump.
#[derive(Debug, Clone, Copy)]
pub struct Instant([u8; 27]);

impl Instant {
    /// `2021-06-10T08:26:10.707454Z`.
    pub fn as_str(&self) -> &str {
        // Digits and signs only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Of microseconds since 2000-01-01 UTC. None for what an instant cannot say: infinity, years before 1 and after 9999.
pub fn from_timestamp(microseconds: i64) -> Option<Instant> {
    let (days, time) = (microseconds.div_euclid(DAY), microseconds.rem_euclid(DAY));
    // Howard Hinnant's civil_from_days: years begin in March, so that leap days come last.
    let days = days + EPOCH_DAYS;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    if !(1..=9999).contains(&year) {
        return None;
    }
    let (seconds, fraction) = (time / 1_000_000, time % 1_000_000);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut write = |mut value: i64, places: std::ops::Range<usize>| {
        for place in places.rev() {
            text[place] += (value % 10) as u8;
            value /= 10;
        }
    };
    write(year, 0..4);
    write(month, 5..7);
    write(day, 8..10);
    write(seconds / 3600, 11..13);
    write(seconds / 60 % 60, 14..16);
    write(seconds % 60, 17..19);
    write(fraction, 20..26);
    Some(Instant(text))
}

/// Microseconds since 2000-01-01 UTC of an instant (`2021-06-10T08:26:10.707454+02:00`), which has its seconds and its zone. What is below a
/// microsecond is rounded.
pub fn to_timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let clock = time.trim_end_matches('Z');
    let (clock, offset) = match (clock.len() < time.len(), clock.rfind(['+', '-'])) {
        (true, None) if clock.len() + 1 == time.len() => (clock, 0),
        (false, Some(at)) => {
            let [hours, minutes] = numbers(&clock[at + 1..], ':', [2, 2])?;
            let offset = (hours * 60 + minutes) * 60_000_000;
            (hours <= 14 && minutes < 60).then_some((&clock[..at], if clock[at..].starts_with('-') { -offset } else { offset }))?
        }
        _ => return None,
    };
    let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(clock, fraction)| (clock, Some(fraction)));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second is the next minute's first, as for PostgreSQL.
    if year < 1 || !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let microseconds = match fraction {
        None => 0,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            let digit = |place| digits.as_bytes().get(place).map_or(0, |digit| i64::from(digit - b'0'));
            (0..6).fold(0, |value, place| value * 10 + digit(place)) + i64::from(digit(6) >= 5)
        }
        Some(_) => return None,
    };
    // Howard Hinnant's days_from_civil.
    let shifted_year = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH_DAYS;
    Some(days * DAY + ((hour * 60 + minute) * 60 + second) * 1_000_000 + microseconds - offset)
}

/// The first microsecond of a FHIR date, dateTime or instant, and the first behind it: of a year, a month, a day, a minute, a second or a part
/// of one. A time without a zone is UTC's.
pub fn range(text: &str) -> Option<(i64, i64)> {
    let day = |text: &str| to_timestamp(&format!("{text}T00:00:00Z"));
    let Some((_, time)) = text.split_once('T') else {
        return match text.len() {
            4 => {
                let next = text.parse::<u32>().ok()?.checked_add(1)?;
                Some((day(&format!("{text}-01-01"))?, day(&format!("{next:04}-01-01"))?))
            }
            7 => {
                let (year, month) = (text.get(..4)?.parse::<u32>().ok()?, text.get(5..)?.parse::<u32>().ok()?);
                let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                Some((day(&format!("{text}-01"))?, day(&format!("{next_year:04}-{next_month:02}-01"))?))
            }
            _ => day(text).map(|start| (start, start + DAY)),
        };
    };
    let clock = time.find(['Z', '+', '-']).map_or(time, |at| &time[..at]);
    let zone = if clock.len() == time.len() { "Z" } else { "" };
    if clock.len() == 5 {
        let at = text.len() - time.len() + clock.len();
        let start = to_timestamp(&format!("{}:00{}{zone}", &text[..at], &text[at..]))?;
        return Some((start, start + 60_000_000));
    }
    let start = to_timestamp(&format!("{text}{zone}"))?;
    let digits = clock.split_once('.').map_or(0, |(_, digits)| digits.len().min(6));
    Some((start, start + 10_i64.pow(6 - digits as u32)))
}

/// Numbers of so many digits each, with a sign between them.
fn numbers<const N: usize>(text: &str, sign: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(sign);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::from_timestamp;
    use super::range;
    use super::to_timestamp;

    #[test]
    fn dates_are_ranges() {
        let at = |text| to_timestamp(text).unwrap();
        for (text, from, to) in [
            ("2020", "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
            ("2020-12", "2020-12-01T00:00:00Z", "2021-01-01T00:00:00Z"),
            ("2020-02-29", "2020-02-29T00:00:00Z", "2020-03-01T00:00:00Z"),
            ("2020-02-29T10:00", "2020-02-29T10:00:00Z", "2020-02-29T10:01:00Z"),
            ("2020-02-29T10:00+01:00", "2020-02-29T09:00:00Z", "2020-02-29T09:01:00Z"),
            ("2020-02-29T10:00:07Z", "2020-02-29T10:00:07Z", "2020-02-29T10:00:08Z"),
            ("2020-02-29T10:00:07.12-01:00", "2020-02-29T11:00:07.12Z", "2020-02-29T11:00:07.13Z"),
        ] {
            assert_eq!(range(text), Some((at(from), at(to))), "{text}");
        }
        for text in [
            "",
            "20",
            "2020-1",
            "2020-13",
            "2020-é1",
            "2020-02-30",
            "today",
            "2020-02-29T",
            "2020-02-29T10",
            "é020",
            "202é01",
            "2020-02-29T1é:00",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[test]
    fn instants_are_read_as_they_are_written() {
        for microseconds in
            [0, -1, 676_628_770_707_454, 5_097_600_000_000, -946_684_800_000_000, 252_455_615_999_999_999, -63_082_281_600_000_000]
        {
            let text = from_timestamp(microseconds).unwrap();
            assert_eq!(to_timestamp(text.as_str()), Some(microseconds), "{}", text.as_str());
        }
        for (text, same) in [
            ("2021-06-10T10:26:10+02:00", "2021-06-10T08:26:10Z"),
            ("2021-06-10T08:26:10.5-00:30", "2021-06-10T08:56:10.500Z"),
            ("2021-06-10T08:26:10.1234565Z", "2021-06-10T08:26:10.123457Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("2021-06-10T08:26:10.9999999Z", "2021-06-10T08:26:11Z"),
        ] {
            assert_eq!(to_timestamp(text), to_timestamp(same), "{text}");
            assert!(to_timestamp(text).is_some());
        }
        for text in [
            "",
            "2021",
            "2021-06-10",
            "2021-06-10T08:26:10",
            "2021-06-10T08:26Z",
            "2021-06-10T08:26:10ZZ",
            "2021-06-10T08:26:10+2:00",
            "2021-02-29T00:00:00Z",
            "2021-13-01T00:00:00Z",
            "2021-00-01T00:00:00Z",
            "2021-06-31T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2021-06-10T24:00:00Z",
            "2021-06-10T08:26:10.Z",
            "2021-06-10T08:26:10.xZ",
            "2021-06-10T08:26:10+02:00Z",
            "+021-06-10T08:26:10Z",
            "2021-06-10T08:26:10+15:00",
            "é2021-06-10T08:26:10Z",
        ] {
            assert_eq!(to_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_written_in_utc_with_microseconds() {
        for (microseconds, text) in [
            (0, "2000-01-01T00:00:00.000000Z"),
            (-1, "1999-12-31T23:59:59.999999Z"),
            (676_628_770_707_454, "2021-06-10T08:26:10.707454Z"),
            (5_097_600_000_000, "2000-02-29T00:00:00.000000Z"),
            (-946_684_800_000_000, "1970-01-01T00:00:00.000000Z"),
            (252_455_615_999_999_999, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(from_timestamp(microseconds).unwrap().as_str(), text);
        }
        assert!(from_timestamp(252_455_616_000_000_000).is_none());
        assert!(from_timestamp(-64_000_000_000_000_000).is_none());
        assert!(from_timestamp(i64::MAX).is_none());
        assert!(from_timestamp(i64::MIN).is_none());
    }
}

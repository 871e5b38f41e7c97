//! A FHIR instant from PostgreSQL's timestamptz.

/// Days from 0000-03-01 to 2000-01-01, PostgreSQL's epoch.
const EPOCH_DAYS: i64 = 730_425;
const DAY: i64 = 86_400_000_000;

/// `2021-06-10T08:26:10.707454Z`. Without the formatter, which took a tenth of a dump.
#[derive(Debug, Clone, Copy)]
pub struct Instant([u8; 27]);

impl Instant {
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

#[cfg(test)]
mod tests {
    use super::from_timestamp;

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

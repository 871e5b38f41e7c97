//! A FHIR instant from PostgreSQL's timestamptz.

use std::io::Write;

/// Days from 0000-03-01 to 2000-01-01, PostgreSQL's epoch.
const EPOCH_DAYS: i64 = 730_425;
const DAY: i64 = 86_400_000_000;

/// Microseconds since 2000-01-01 UTC as `2021-06-10T08:26:10.707454Z`. None for what an instant cannot say: infinity, years before 1
/// and after 9999.
pub fn from_timestamp(microseconds: i64) -> Option<String> {
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
    let mut text = Vec::with_capacity(27);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z").ok()?;
    String::from_utf8(text).ok()
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
            assert_eq!(from_timestamp(microseconds).unwrap(), text);
        }
        assert_eq!(from_timestamp(252_455_616_000_000_000), None);
        assert_eq!(from_timestamp(-64_000_000_000_000_000), None);
        assert_eq!(from_timestamp(i64::MAX), None);
        assert_eq!(from_timestamp(i64::MIN), None);
    }
}

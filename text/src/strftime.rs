//! A date as `strftime` spells it, in English and UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// The time now. Python's templates get that of their machine; here it is UTC.
pub fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// How the number of a directive is padded, or its letters are written.
#[derive(Clone, Copy, Default)]
struct Flags {
    /// What numbers are padded with; not at all with `-`.
    fill: Option<Option<char>>,
    is_upper: bool,
    swaps_case: bool,
    width: usize,
}

/// Formats a time since 1970 as the C library does in English, with `%f` as Python does. Unknown
/// directives stay as they are.
///
/// # Errors
/// For a width that no date has.
pub fn strftime(format: &str, time: Duration) -> Result<String, String> {
    let date = Date::of(time);
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, sign)) = rest.split_once('%') {
        text += before;
        let (flags, behind) = flags(sign)?;
        let behind = behind.strip_prefix(['E', 'O']).unwrap_or(behind);
        let mut characters = behind.chars();
        let spelt = characters.next().and_then(|sign| date.sign(sign, flags));
        match spelt {
            Some(spelt) => {
                text += &spelt;
                rest = characters.as_str();
            }
            None => {
                text.push('%');
                rest = sign;
            }
        }
    }
    Ok(text + rest)
}

fn flags(text: &str) -> Result<(Flags, &str), String> {
    let mut flags = Flags::default();
    let mut rest = text;
    while let Some(flag) = rest.chars().next() {
        match flag {
            '-' => flags.fill = Some(None),
            '_' => flags.fill = Some(Some(' ')),
            '0' => flags.fill = Some(Some('0')),
            '^' => flags.is_upper = true,
            '#' => flags.swaps_case = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    if end > 0 {
        let width = rest[..end].parse().ok().filter(|width| *width <= 256);
        flags.width = width
            .ok_or_else(|| format!("a date asks for {} columns: at most 256", &rest[..end]))?;
    }
    Ok((flags, &rest[end..]))
}

struct Date {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    /// Of the year, from 1.
    year_day: u64,
    /// From Sunday, 0.
    weekday: usize,
    /// Of the day.
    seconds: u64,
    /// Since 1970.
    time: Duration,
}

impl Date {
    fn of(time: Duration) -> Self {
        let seconds = time.as_secs();
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
        };
        let days = seconds / 86_400;
        // A day past the year 9999 is taken for its last: no clock is that wrong.
        let (mut year, mut rest) = (1970, days.min(2_932_896));
        while rest >= 365 + u64::from(is_leap(year)) {
            rest -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let year_day = rest + 1;
        let february = 28 + u64::from(is_leap(year));
        let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        while rest >= lengths[month] {
            rest -= lengths[month];
            month += 1;
        }
        Self {
            year,
            month,
            day: rest + 1,
            year_day,
            // 1970 began on a Thursday.
            weekday: usize::try_from((days + 4) % 7).unwrap_or(0),
            seconds: seconds % 86_400,
            time,
        }
    }

    /// The week that a day is in, by ISO 8601, and the year of that week.
    fn iso_week(&self) -> (u64, u64) {
        let weekday = (self.weekday as u64 + 6) % 7 + 1;
        let weeks = |year: u64| {
            // A year with 53 weeks begins on a Thursday, or on a Wednesday if it is a leap year.
            let last = |year: u64| (year + year / 4 - year / 100 + year / 400) % 7;
            52 + u64::from(last(year) == 4 || last(year - 1) == 3)
        };
        match (self.year_day + 10 - weekday) / 7 {
            0 => (weeks(self.year - 1), self.year - 1),
            week if week > weeks(self.year) => (1, self.year + 1),
            week => (week, self.year),
        }
    }

    /// What a directive stands for, if it is known.
    fn sign(&self, sign: char, flags: Flags) -> Option<String> {
        let (hour, minute, second) = (
            self.seconds / 3_600,
            self.seconds / 60 % 60,
            self.seconds % 60,
        );
        let twelve = (hour + 11) % 12 + 1;
        let weekday = self.weekday as u64;
        let month = self.month as u64 + 1;
        let number = |value: u64, width: usize, fill: char| {
            let width = if flags.width > 0 { flags.width } else { width };
            match flags.fill.unwrap_or(Some(fill)) {
                None => value.to_string(),
                Some('0') => format!("{value:0width$}"),
                Some(_) => format!("{value:width$}"),
            }
        };
        let two = |value: u64| number(value, 2, '0');
        let word = |word: &str| self.word(word, flags);
        let inner = |format: &str| {
            let spelt = strftime(format, self.time).unwrap_or_default();
            self.word(&spelt, flags)
        };
        Some(match sign {
            'Y' => number(self.year, 1, '0'),
            'C' => two(self.year / 100),
            'y' => two(self.year % 100),
            'G' => number(self.iso_week().1, 1, '0'),
            'g' => two(self.iso_week().1 % 100),
            'm' => two(month),
            'd' => two(self.day),
            'e' => number(self.day, 2, ' '),
            'j' => number(self.year_day, 3, '0'),
            'H' => two(hour),
            'I' => two(twelve),
            'k' => number(hour, 2, ' '),
            'l' => number(twelve, 2, ' '),
            'M' => two(minute),
            'S' => two(second),
            's' => number(self.time.as_secs(), 1, '0'),
            'f' => format!("{:06}", self.time.subsec_micros()),
            'u' => number((weekday + 6) % 7 + 1, 1, '0'),
            'w' => number(weekday, 1, '0'),
            'U' => two((self.year_day + 6 - weekday) / 7),
            'W' => two((self.year_day + 6 - (weekday + 6) % 7) / 7),
            'V' => two(self.iso_week().0),
            'B' => word(MONTHS[self.month]),
            'b' | 'h' => word(&MONTHS[self.month][..3]),
            'A' => word(DAYS[self.weekday]),
            'a' => word(&DAYS[self.weekday][..3]),
            'p' if flags.swaps_case => word(if hour < 12 { "am" } else { "pm" }),
            'p' => word(if hour < 12 { "AM" } else { "PM" }),
            'P' => word(if hour < 12 { "am" } else { "pm" }),
            'c' => inner("%a %b %e %H:%M:%S %Y"),
            'D' | 'x' => inner("%m/%d/%y"),
            'F' => inner("%Y-%m-%d"),
            'R' => inner("%H:%M"),
            'r' => inner("%I:%M:%S %p"),
            'T' | 'X' => inner("%H:%M:%S"),
            'n' => "\n".to_string(),
            't' => "\t".to_string(),
            // Python's clock of a machine knows no zone.
            'z' | 'Z' => String::new(),
            '%' => "%".to_string(),
            _ => return None,
        })
    }

    fn word(&self, word: &str, flags: Flags) -> String {
        let is_upper = flags.is_upper || (flags.swaps_case && !word.ends_with('m'));
        let word = if is_upper {
            word.to_uppercase()
        } else {
            word.to_string()
        };
        let width = flags.width;
        match flags.fill {
            Some(Some('0')) => "0".repeat(width.saturating_sub(word.len())) + &word,
            _ => format!("{word:>width$}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    fn strftime(format: &str, seconds: u64) -> String {
        super::strftime(format, Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn known_times() {
        let all = "%a %A %d %b %B %Y %y %m %j %H:%M:%S %I%p %F %T %Z";
        assert_eq!(
            strftime(all, 1_700_000_000),
            "Tue Tuesday 14 Nov November 2023 23 11 318 22:13:20 10PM 2023-11-14 22:13:20 "
        );
        let day = |seconds| strftime("%F %a %-j", seconds);
        assert_eq!(day(0), "1970-01-01 Thu 1");
        assert_eq!(day(951_782_400), "2000-02-29 Tue 60");
        assert_eq!(day(4_107_542_400), "2100-03-01 Mon 60");
        assert_eq!(day(1_735_603_200), "2024-12-31 Tue 366");
        assert_eq!(strftime("%-H %I%p", 0), "0 12AM");
        assert!(strftime("%Y", u64::MAX).starts_with("9999"));
    }

    /// As Python's `datetime.strftime` spells them, on Linux.
    #[test]
    fn all_signs() {
        let of = |format: &str| strftime(format, 1_709_631_425);
        assert_eq!(of("%e|%D|%U|%W|%V|%G|%g|%u|%w|%h|%C"), PYTHON[0]);
        assert_eq!(of("%c|%x|%X|%R|%r|%k|%l|%P|%s|%f|%z|%Z"), PYTHON[1]);
        assert_eq!(
            of("%-d|%_d|%^a|%^B|%#p|%05d|%-m|%n|%t|%Ey|%Od|%%"),
            PYTHON[2]
        );
        for (seconds, weeks) in WEEKS {
            assert_eq!(strftime("%F %G %V %U %W", seconds), weeks);
        }
    }

    const PYTHON: [&str; 3] = [
        " 5|03/05/24|09|10|10|2024|24|2|2|Mar|20",
        "Tue Mar  5 09:37:05 2024|03/05/24|09:37:05|09:37|09:37:05 AM| 9| 9|am|1709631425|000000||",
        "5| 5|TUE|MARCH|am|00005|3|\n|\t|24|05|%",
    ];

    const WEEKS: [(u64, &str); 60] = [
        (0, "1970-01-01 1970 01 00 00"),
        (172800, "1970-01-03 1970 01 00 00"),
        (31276800, "1970-12-29 1970 53 52 52"),
        (31449600, "1970-12-31 1970 53 52 52"),
        (220924800, "1977-01-01 1976 53 00 00"),
        (221097600, "1977-01-03 1977 01 01 01"),
        (252201600, "1977-12-29 1977 52 52 52"),
        (252374400, "1977-12-31 1977 52 52 52"),
        (315532800, "1980-01-01 1980 01 00 00"),
        (315705600, "1980-01-03 1980 01 00 00"),
        (346896000, "1980-12-29 1981 01 52 52"),
        (347068800, "1980-12-31 1981 01 52 52"),
        (946684800, "2000-01-01 1999 52 00 00"),
        (946857600, "2000-01-03 2000 01 01 01"),
        (978048000, "2000-12-29 2000 52 52 52"),
        (978220800, "2000-12-31 2000 52 53 52"),
        (1072915200, "2004-01-01 2004 01 00 00"),
        (1073088000, "2004-01-03 2004 01 00 00"),
        (1104278400, "2004-12-29 2004 53 52 52"),
        (1104451200, "2004-12-31 2004 53 52 52"),
        (1104537600, "2005-01-01 2004 53 00 00"),
        (1104710400, "2005-01-03 2005 01 01 01"),
        (1135814400, "2005-12-29 2005 52 52 52"),
        (1135987200, "2005-12-31 2005 52 52 52"),
        (1199145600, "2008-01-01 2008 01 00 00"),
        (1199318400, "2008-01-03 2008 01 00 00"),
        (1230508800, "2008-12-29 2009 01 52 52"),
        (1230681600, "2008-12-31 2009 01 52 52"),
        (1230768000, "2009-01-01 2009 01 00 00"),
        (1230940800, "2009-01-03 2009 01 00 00"),
        (1262044800, "2009-12-29 2009 53 52 52"),
        (1262217600, "2009-12-31 2009 53 52 52"),
        (1325376000, "2012-01-01 2011 52 01 00"),
        (1325548800, "2012-01-03 2012 01 01 01"),
        (1356739200, "2012-12-29 2012 52 52 52"),
        (1356912000, "2012-12-31 2013 01 53 53"),
        (1420070400, "2015-01-01 2015 01 00 00"),
        (1420243200, "2015-01-03 2015 01 00 00"),
        (1451347200, "2015-12-29 2015 53 52 52"),
        (1451520000, "2015-12-31 2015 53 52 52"),
        (1451606400, "2016-01-01 2015 53 00 00"),
        (1451779200, "2016-01-03 2015 53 01 00"),
        (1482969600, "2016-12-29 2016 52 52 52"),
        (1483142400, "2016-12-31 2016 52 52 52"),
        (1577836800, "2020-01-01 2020 01 00 00"),
        (1578009600, "2020-01-03 2020 01 00 00"),
        (1609200000, "2020-12-29 2020 53 52 52"),
        (1609372800, "2020-12-31 2020 53 52 52"),
        (1609459200, "2021-01-01 2020 53 00 00"),
        (1609632000, "2021-01-03 2020 53 01 00"),
        (1640736000, "2021-12-29 2021 52 52 52"),
        (1640908800, "2021-12-31 2021 52 52 52"),
        (1767225600, "2026-01-01 2026 01 00 00"),
        (1767398400, "2026-01-03 2026 01 00 00"),
        (1798502400, "2026-12-29 2026 53 52 52"),
        (1798675200, "2026-12-31 2026 53 52 52"),
        (1798761600, "2027-01-01 2026 53 00 00"),
        (1798934400, "2027-01-03 2026 53 01 00"),
        (1830038400, "2027-12-29 2027 52 52 52"),
        (1830211200, "2027-12-31 2027 52 52 52"),
    ];

    #[test]
    fn other_signs_stay() {
        assert_eq!(strftime("100%% %q %", 0), "100% %q %");
        assert!(super::strftime("%999999999d", Duration::ZERO).is_err());
    }
}

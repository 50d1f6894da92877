//! A date as `strftime` spells it, in English and UTC.

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

/// Spells a time, given in seconds since 1970, by the signs that chat templates use. Others stay
/// as they are.
pub fn strftime(format: &str, seconds: u64) -> String {
    let date = Date::of(seconds);
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        match characters.next() {
            // `%-d` is `%d` without the zero in front.
            Some('-') => match characters.next() {
                Some(sign) => {
                    let spelt = date.sign(sign);
                    text += match spelt.trim_start_matches('0') {
                        "" => "0",
                        rest => rest,
                    };
                }
                None => text += "%-",
            },
            Some(sign) => text += &date.sign(sign),
            None => text.push('%'),
        }
    }
    text
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
}

impl Date {
    fn of(seconds: u64) -> Self {
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
        }
    }

    fn sign(&self, sign: char) -> String {
        let (hour, minute) = (self.seconds / 3_600, self.seconds / 60 % 60);
        match sign {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month + 1),
            'B' => MONTHS[self.month].to_string(),
            'b' => MONTHS[self.month][..3].to_string(),
            'd' => format!("{:02}", self.day),
            'j' => format!("{:03}", self.year_day),
            'A' => DAYS[self.weekday].to_string(),
            'a' => DAYS[self.weekday][..3].to_string(),
            'H' => format!("{hour:02}"),
            'I' => format!("{:02}", (hour + 11) % 12 + 1),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_string(),
            'M' => format!("{minute:02}"),
            'S' => format!("{:02}", self.seconds % 60),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month + 1, self.day),
            'T' => format!("{hour:02}:{minute:02}:{:02}", self.seconds % 60),
            'Z' => "UTC".to_string(),
            '%' => "%".to_string(),
            other => format!("%{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn known_times() {
        let all = "%a %A %d %b %B %Y %y %m %j %H:%M:%S %I%p %F %T %Z";
        assert_eq!(
            strftime(all, 1_700_000_000),
            "Tue Tuesday 14 Nov November 2023 23 11 318 22:13:20 10PM 2023-11-14 22:13:20 UTC"
        );
        let day = |seconds| strftime("%F %a %-j", seconds);
        assert_eq!(day(0), "1970-01-01 Thu 1");
        assert_eq!(day(951_782_400), "2000-02-29 Tue 60");
        assert_eq!(day(4_107_542_400), "2100-03-01 Mon 60");
        assert_eq!(day(1_735_603_200), "2024-12-31 Tue 366");
        assert_eq!(strftime("%-H %I%p", 0), "0 12AM");
        assert!(strftime("%Y", u64::MAX).starts_with("9999"));
    }

    #[test]
    fn other_signs_stay() {
        assert_eq!(strftime("100%% %q %", 0), "100% %q %");
    }
}

//! Cron expressions in crontab syntax: minute, hour, day, month, weekday.
//!
//! Chosen: 250 lines of our own rather than a crate. `cron` 0.17 requires seconds and counts Sunday as 1. `croner` 4
//! has the dialect of crontab, but in 7,000 lines with many more features, and it does not report the position of an
//! error. Revisit if users ask for `L`, `W` or `#`.
//!
//! When clocks go forward or back, an expression does what its author most likely meant. If the hour field matches
//! **every hour**, elapsed hours count: skipped hours do not run, and repeated hours run twice. If the hour field
//! matches only **some hours**, times of day count: each runs once a day, at its first occurrence, and a skipped time
//! runs right after the gap.

use chrono::{
    DateTime, Datelike, MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc,
};
use chrono_tz::{GapInfo, Tz};

use crate::base::error::FieldError;

/// Expression that is suggested if there is no more specific suggestion.
const EXAMPLE: &str = "0 2 * * *";
/// Number of days to search. The calendar repeats after 28 years, or after 40 if a leap year is left out (as in 2100).
const HORIZON_DAYS: usize = 366 * 41;

/// Field of an expression: its name, its range of values, and the names of values (`JAN`, `MON`), if any.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day", min: 1, max: 31, names: &[] },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
    },
    Field {
        name: "weekday",
        min: 0,
        max: 7,
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    },
];

/// Value of `Cron::hours` if the hour field matches every hour.
const EVERY_HOUR: u64 = (1 << 24) - 1;

/// A parsed cron expression. Each field is a set of values, one bit per value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is bit 0; the value 7 is stored as 0.
    weekdays: u64,
    /// True if neither the day nor the weekday begins with `*`. A date then matches if either of them matches, as in
    /// crontab.
    is_either_day: bool,
}

impl Cron {
    /// Parses an expression.
    ///
    /// # Errors
    /// One error per wrong field, with the position of the character and a suggestion.
    pub fn parse(text: &str, path: &str) -> Result<Self, Vec<FieldError>> {
        let whole = |message: String, suggestion: &str| {
            vec![FieldError {
                suggestion: Some(suggestion.to_owned()),
                ..FieldError::new(path, message)
            }]
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        if let [shorthand] = &fields[..]
            && shorthand.starts_with('@')
        {
            let meaning = match shorthand.to_ascii_lowercase().as_str() {
                "@hourly" => "0 * * * *",
                "@daily" | "@midnight" => "0 0 * * *",
                "@weekly" => "0 0 * * 0",
                "@monthly" => "0 0 1 * *",
                "@yearly" | "@annually" => "0 0 1 1 *",
                _ => EXAMPLE,
            };
            return Err(whole(
                "shorthands are not supported: write the five fields".to_owned(),
                meaning,
            ));
        }
        if fields.len() != FIELDS.len() {
            // Other dialects have six fields, with seconds first.
            let suggestion =
                if fields.len() == 6 { fields[1..].join(" ") } else { EXAMPLE.to_owned() };
            let message = format!(
                "has {} fields, but an expression has five: minute hour day month weekday",
                fields.len()
            );
            return Err(whole(message, &suggestion));
        }
        let (mut field_values, mut faults) = ([0; 5], Vec::new());
        for (index, (set, text_of_field)) in field_values.iter_mut().zip(&fields).enumerate() {
            // The field is a slice of the text, so the difference of the pointers is its position.
            let start = text_of_field.as_ptr() as usize - text.as_ptr() as usize;
            let character = |within: usize| text[..start + within].chars().count() + 1;
            match FIELDS[index].parse(text_of_field) {
                Ok(values) => *set = values,
                Err(ItemError { at, message, replacement }) => {
                    let mut corrected = fields.clone();
                    corrected[index] = replacement.as_deref().unwrap_or("");
                    let suggestion = replacement
                        .as_ref()
                        .map_or_else(|| EXAMPLE.to_owned(), |_| corrected.join(" "));
                    let message = format!(
                        "the {} (field {}, at character {}) {message}",
                        FIELDS[index].name,
                        index + 1,
                        character(at)
                    );
                    faults.push(FieldError {
                        suggestion: Some(suggestion),
                        ..FieldError::new(path, message)
                    });
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let [minutes, hours, days, months, weekdays] = field_values;
        Ok(Self {
            minutes,
            hours,
            days,
            months,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            is_either_day: !fields[2].starts_with('*') && !fields[4].starts_with('*'),
        })
    }

    /// Returns the first time after `after` that the expression matches in the time zone `zone`. Returns `None` if it
    /// matches no later time.
    pub fn next(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        // Begin a day earlier: if clocks go back over midnight, times of the previous day are repeated.
        let first = after.with_timezone(&zone).date_naive().pred_opt()?;
        let mut days = first.iter_days().take(HORIZON_DAYS).filter(|day| self.matches_date(*day));
        let (day, found) = days.find_map(|day| Some((day, self.next_on(day, after, zone)?)))?;
        // For the same reason, a time of the following day may be earlier.
        let tomorrow = day.succ_opt().filter(|day| self.matches_date(*day));
        let earlier = tomorrow.and_then(|day| self.next_on(day, after, zone));
        Some(earlier.map_or(found, |earlier| earlier.min(found)))
    }

    fn matches_date(&self, date: NaiveDate) -> bool {
        let has = |set: u64, value: u32| set >> value & 1 == 1;
        let (day, weekday) =
            (has(self.days, date.day()), has(self.weekdays, date.weekday().num_days_from_sunday()));
        let matches_day = if self.is_either_day { day || weekday } else { day && weekday };
        matches_day && has(self.months, date.month())
    }

    /// Returns the first matching time of one day that is later than `after`.
    fn next_on(&self, day: NaiveDate, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let noon = day.and_hms_opt(12, 0, 0)?;
        let offsets = (-2..=2).map(|days| {
            zone.offset_from_utc_datetime(&(noon + TimeDelta::days(days))).fix().local_minus_utc()
        });
        let (west, east) = offsets.fold((i32::MAX, i32::MIN), |(west, east), offset| {
            (west.min(offset), east.max(offset))
        });
        // The earliest and the latest time (UTC) at which clocks in the zone can show the local time.
        let earliest = |time: NaiveDateTime| (time - TimeDelta::seconds(east.into())).and_utc();
        let latest = |time: NaiveDateTime| (time - TimeDelta::seconds(west.into())).and_utc();
        let may_be_after = |time: &NaiveDateTime| latest(*time) > after;
        let mut times = values(self.hours)
            .filter(|hour| day.and_hms_opt(*hour, 59, 0).as_ref().is_some_and(may_be_after))
            .flat_map(|hour| {
                values(self.minutes).filter_map(move |minute| day.and_hms_opt(hour, minute, 0))
            })
            .filter(may_be_after);
        if west == east {
            return times.next().map(earliest);
        }
        // The offset changes around that day, so a later local time may be earlier in UTC.
        let mut found: Option<DateTime<Utc>> = None;
        for time in times {
            if found.is_some_and(|found| found <= earliest(time)) {
                break;
            }
            let utc_times = self.utc_times(time, zone).into_iter().flatten();
            found = utc_times.filter(|time_utc| *time_utc > after).chain(found).min();
        }
        found
    }

    /// Returns the times (UTC) at which clocks in the zone show the local time. Leaves out those that the expression
    /// does not count.
    fn utc_times(&self, time: NaiveDateTime, zone: Tz) -> [Option<DateTime<Utc>>; 2] {
        let is_every_hour = self.hours == EVERY_HOUR;
        match zone.from_local_datetime(&time) {
            MappedLocalTime::Single(once) => [Some(once.to_utc()), None],
            MappedLocalTime::Ambiguous(first, second) => {
                [Some(first.to_utc()), is_every_hour.then(|| second.to_utc())]
            }
            MappedLocalTime::None if is_every_hour => [None, None],
            MappedLocalTime::None => {
                [GapInfo::new(&time, &zone).and_then(|gap| gap.end).map(|end| end.to_utc()), None]
            }
        }
    }
}

/// Returns the values of a set, smallest first.
fn values(set: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |value| set >> value & 1 == 1)
}

/// Error in a field: its byte offset in the field, and a corrected field if there is a suggestion.
struct ItemError {
    at: usize,
    message: String,
    replacement: Option<String>,
}

impl ItemError {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), replacement: None }
    }
}

impl Field {
    /// Parses a field into a set of values. The items between commas are each `*`, a value or a range, with an optional
    /// step after a `/`.
    fn parse(&self, text: &str) -> Result<u64, ItemError> {
        let mut at = 0;
        text.split(',').try_fold(0, |set, part| {
            let values = self.item(part).map_err(|error| ItemError {
                at: at + error.at,
                replacement: error.replacement.map(|item_replacement| {
                    format!("{}{item_replacement}{}", &text[..at], &text[at + part.len()..])
                }),
                ..error
            })?;
            at += part.len() + 1;
            Ok(set | values)
        })
    }

    fn item(&self, text: &str) -> Result<u64, ItemError> {
        if text == "?" {
            return Err(ItemError {
                replacement: Some("*".to_owned()),
                ..ItemError::new(0, "is ?, which crontab does not support")
            });
        }
        let (range, step) = match text.split_once('/') {
            None => (text, None),
            Some((range, step)) => (range, Some((range.len() + 1, step))),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max),
            None => {
                let value = self.value(0, range)?;
                if let Some((_, step)) = step {
                    let replacement = Some(format!("{range}-{}/{step}", self.max));
                    return Err(ItemError {
                        replacement,
                        ..ItemError::new(0, "has a step, but neither * nor a range before it")
                    });
                }
                (value, value)
            }
            Some((from, to)) => (self.value(0, from)?, self.value(from.len() + 1, to)?),
        };
        if from > to {
            return Err(ItemError::new(0, format!("is the range {range}, which runs backwards")));
        }
        let step = match step {
            None => 1,
            Some((at, step)) => read_step(at, step, to - from)?,
        };
        Ok((from..=to).step_by(step).fold(0, |set, value| set | 1 << value))
    }

    fn value(&self, at: usize, text: &str) -> Result<u32, ItemError> {
        if let Some(index) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.min + u32::try_from(index).unwrap_or_default());
        }
        let span = format!("{} to {}", self.min, self.max);
        if text.is_empty() {
            return Err(ItemError::new(at, format!("lacks a number from {span}")));
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let or = match self.names {
                [] => String::new(),
                names => format!(", or {} to {}", names[0], names[names.len() - 1]),
            };
            return Err(ItemError::new(at, format!("is {text:?}, but must be {span}{or}")));
        }
        text.parse()
            .ok()
            .filter(|value| (self.min..=self.max).contains(value))
            .ok_or_else(|| ItemError::new(at, format!("is {text}, but must be {span}")))
    }
}

/// Parses a step, which must not exceed `span`, the length of its range.
fn read_step(at: usize, text: &str, span: u32) -> Result<usize, ItemError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let step = text.parse().ok().filter(|_| is_number);
    match step {
        None | Some(0) => {
            Err(ItemError::new(at, format!("has the step {text:?}: it must be 1 or more")))
        }
        Some(step) if step > span => {
            Err(ItemError::new(at, format!("has the step {step}, which is larger than its range")))
        }
        Some(step) => Ok(step as usize),
    }
}

#[cfg(test)]
mod tests;

//! Cron expressions as crontab has them: minute, hour, day, month, weekday.
//!
//! Our own 250 lines instead of a crate: `cron` 0.17 wants seconds and counts Sunday as 1; `croner` 4 is crontab's dialect,
//! in 7,000 lines of more than that, and does not say where an expression is wrong. Choose again if people ask for `L`,
//! `W` or `#`.
//!
//! Where the clock is put forward or back, people mean what they would do by hand. An expression of **every hour** counts
//! hours that pass: those skipped are none, and those repeated are two. One of **certain hours** counts times of the day:
//! each once a day, the first time it comes; what was skipped is done where the clock goes on.

use chrono::{
    DateTime, Datelike, MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc,
};
use chrono_tz::{GapInfo, Tz};

use crate::base::error::FieldError;

/// What people are shown of how to write one.
const EXAMPLE: &str = "0 2 * * *";
/// Dates come again after 28 years, or 40 where a leap year is left out.
const HORIZON_DAYS: usize = 366 * 41;

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

const EVERY_HOUR: u64 = (1 << 24) - 1;

/// A cron expression, read: a bit for each value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is 0, and only 0.
    weekdays: u64,
    /// Day and weekday are both given without `*`: then either will do, as crontab has it.
    is_either_day: bool,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, by field and character.
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
                "shorthands are not read: write the five fields".to_owned(),
                meaning,
            ));
        }
        if fields.len() != FIELDS.len() {
            // Six are what other dialects have: seconds first.
            let suggestion =
                if fields.len() == 6 { fields[1..].join(" ") } else { EXAMPLE.to_owned() };
            let message = format!(
                "has {} fields, but an expression has five: minute hour day month weekday",
                fields.len()
            );
            return Err(whole(message, &suggestion));
        }
        let (mut sets, mut faults) = ([0; 5], Vec::new());
        for (place, (set, text_of_field)) in sets.iter_mut().zip(&fields).enumerate() {
            // The field is a part of the text: how far from its start.
            let start = text_of_field.as_ptr() as usize - text.as_ptr() as usize;
            let character = |within: usize| text[..start + within].chars().count() + 1;
            match FIELDS[place].parse(text_of_field) {
                Ok(values) => *set = values,
                Err(Wrong { at, message, instead }) => {
                    let mut better = fields.clone();
                    better[place] = instead.as_deref().unwrap_or("");
                    let suggestion =
                        instead.as_ref().map_or_else(|| EXAMPLE.to_owned(), |_| better.join(" "));
                    let message = format!(
                        "the {} (field {}, at character {}) {message}",
                        FIELDS[place].name,
                        place + 1,
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
        let [minutes, hours, days, months, weekdays] = sets;
        Ok(Self {
            minutes,
            hours,
            days,
            months,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            is_either_day: !fields[2].starts_with('*') && !fields[4].starts_with('*'),
        })
    }

    /// The first time after `after`, by the clocks of `zone`; `None` if it never comes.
    pub fn next(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        // From the day before: where a clock goes back over midnight, that day goes on.
        let first = after.with_timezone(&zone).date_naive().pred_opt()?;
        let mut days = first.iter_days().take(HORIZON_DAYS).filter(|day| self.has_day(*day));
        let (day, found) = days.find_map(|day| Some((day, self.next_on(day, after, zone)?)))?;
        // For the same reason the next day may have begun before.
        let tomorrow = day.succ_opt().filter(|day| self.has_day(*day));
        let sooner = tomorrow.and_then(|day| self.next_on(day, after, zone));
        Some(sooner.map_or(found, |sooner| sooner.min(found)))
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        let has = |set: u64, value: u32| set >> value & 1 == 1;
        let (day, weekday) =
            (has(self.days, date.day()), has(self.weekdays, date.weekday().num_days_from_sunday()));
        let fits = if self.is_either_day { day || weekday } else { day && weekday };
        fits && has(self.months, date.month())
    }

    /// The first time after `after` among those of one day.
    fn next_on(&self, day: NaiveDate, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let noon = day.and_hms_opt(12, 0, 0)?;
        let offsets = (-2..=2).map(|days| {
            zone.offset_from_utc_datetime(&(noon + TimeDelta::days(days))).fix().local_minus_utc()
        });
        let (west, east) = offsets.fold((i32::MAX, i32::MIN), |(west, east), offset| {
            (west.min(offset), east.max(offset))
        });
        // The earliest and the latest that clocks there may show the time.
        let earliest = |time: NaiveDateTime| (time - TimeDelta::seconds(east.into())).and_utc();
        let latest = |time: NaiveDateTime| (time - TimeDelta::seconds(west.into())).and_utc();
        let is_to_come = |time: &NaiveDateTime| latest(*time) > after;
        let mut times = values(self.hours)
            .filter(|hour| day.and_hms_opt(*hour, 59, 0).as_ref().is_some_and(is_to_come))
            .flat_map(|hour| {
                values(self.minutes).filter_map(move |minute| day.and_hms_opt(hour, minute, 0))
            })
            .filter(is_to_come);
        if west == east {
            return times.next().map(earliest);
        }
        // Clocks are changed around that day: a later time may come sooner.
        let mut found: Option<DateTime<Utc>> = None;
        for time in times {
            if found.is_some_and(|found| found <= earliest(time)) {
                break;
            }
            let instants = self.instants(time, zone).into_iter().flatten();
            found = instants.filter(|instant| *instant > after).chain(found).min();
        }
        found
    }

    /// When clocks in that zone show the time, as far as it counts.
    fn instants(&self, time: NaiveDateTime, zone: Tz) -> [Option<DateTime<Utc>>; 2] {
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

/// The values of a set, smallest first.
fn values(set: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |value| set >> value & 1 == 1)
}

/// What is wrong with a field: at which byte of it, and what to write in its place where that is known.
struct Wrong {
    at: usize,
    message: String,
    instead: Option<String>,
}

impl Wrong {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), instead: None }
    }
}

impl Field {
    /// The set of a field's values: parts between commas, each `*`, a value or a range, and a step after a `/`.
    fn parse(&self, text: &str) -> Result<u64, Wrong> {
        let mut at = 0;
        text.split(',').try_fold(0, |set, part| {
            let values = self.part(part).map_err(|wrong| Wrong {
                at: at + wrong.at,
                instead: wrong.instead.map(|part_instead| {
                    format!("{}{part_instead}{}", &text[..at], &text[at + part.len()..])
                }),
                ..wrong
            })?;
            at += part.len() + 1;
            Ok(set | values)
        })
    }

    fn part(&self, text: &str) -> Result<u64, Wrong> {
        if text == "?" {
            return Err(Wrong {
                instead: Some("*".to_owned()),
                ..Wrong::new(0, "is ?, which crontab does not know")
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
                    let instead = Some(format!("{range}-{}/{step}", self.max));
                    return Err(Wrong {
                        instead,
                        ..Wrong::new(0, "has a step, but neither * nor a range before it")
                    });
                }
                (value, value)
            }
            Some((from, to)) => (self.value(0, from)?, self.value(from.len() + 1, to)?),
        };
        if from > to {
            return Err(Wrong::new(0, format!("is the range {range}, which runs backwards")));
        }
        let step = match step {
            None => 1,
            Some((at, step)) => read_step(at, step, to - from)?,
        };
        Ok((from..=to).step_by(step).fold(0, |set, value| set | 1 << value))
    }

    fn value(&self, at: usize, text: &str) -> Result<u32, Wrong> {
        if let Some(place) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.min + u32::try_from(place).unwrap_or_default());
        }
        let span = format!("{} to {}", self.min, self.max);
        if text.is_empty() {
            return Err(Wrong::new(at, format!("lacks a number: it goes from {span}")));
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let or = match self.names {
                [] => String::new(),
                names => format!(", or {} to {}", names[0], names[names.len() - 1]),
            };
            return Err(Wrong::new(at, format!("is {text:?}, but it goes from {span}{or}")));
        }
        text.parse()
            .ok()
            .filter(|value| (self.min..=self.max).contains(value))
            .ok_or_else(|| Wrong::new(at, format!("is {text}, but it goes from {span}")))
    }
}

/// A step that stays within a range of that span.
fn read_step(at: usize, text: &str, span: u32) -> Result<usize, Wrong> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let step = text.parse().ok().filter(|_| is_number);
    match step {
        None | Some(0) => {
            Err(Wrong::new(at, format!("has the step {text:?}: it must be 1 or more")))
        }
        Some(step) if step > span => Err(Wrong::new(
            at,
            format!("has the step {step}, which leads out of its range at once"),
        )),
        Some(step) => Ok(step as usize),
    }
}

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use chrono::{Timelike, Weekday};
use chrono_tz::{
    America::{New_York, Sao_Paulo, St_Johns},
    Asia::Kathmandu,
    Australia::Lord_Howe,
    Europe::Berlin,
    Pacific::Apia,
};
use proptest::prelude::*;

use super::*;

fn cron(text: &str) -> Cron {
    Cron::parse(text, "input.cron").unwrap()
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Returns the next `count` times after `after`, as clocks in the zone show them.
fn ticks(text: &str, after: &str, zone: Tz, count: usize) -> Vec<String> {
    let mut now = utc(after);
    (0..count)
        .map(|_| {
            now = cron(text).next(now, zone).unwrap();
            now.with_timezone(&zone).format("%m-%d %H:%M %z").to_string()
        })
        .collect()
}

#[test]
fn times_are_those_of_the_expression() {
    // 2026-01-01 is a Thursday.
    for (text, expected) in [
        ("0 2 * * *", ["01-01 02:00", "01-02 02:00"]),
        ("*/20 * * * *", ["01-01 00:20", "01-01 00:40"]),
        ("5-10/5,50 3 * * *", ["01-01 03:05", "01-01 03:10"]),
        ("0 0 1 * *", ["02-01 00:00", "03-01 00:00"]),
        ("30 6 * * MON-fri", ["01-01 06:30", "01-02 06:30"]),
        ("0 0 * * 7", ["01-04 00:00", "01-11 00:00"]),
        ("0 0 * * 5-7", ["01-02 00:00", "01-03 00:00"]),
        ("0 12 * feb,11 *", ["02-01 12:00", "02-02 12:00"]),
        ("0 0 13 * FRI", ["01-02 00:00", "01-09 00:00"]), // Either matches, as in crontab.
        ("0 0 */10 * 1", ["05-11 00:00", "06-01 00:00"]), // With a star, both must match.
        ("0 0 31 * *", ["01-31 00:00", "03-31 00:00"]),
        ("  0\t4  * * *  ", ["01-01 04:00", "01-02 04:00"]),
    ] {
        let found = ticks(text, "2026-01-01T00:00:00Z", Tz::UTC, 2);
        let expected = expected.map(|time| format!("{time} +0000"));
        assert_eq!(found, expected, "{text}");
    }
    let leap = cron("0 0 29 2 *").next(utc("2096-03-01T00:00:00Z"), Tz::UTC);
    assert_eq!(leap, Some(utc("2104-02-29T00:00:00Z")));
}

#[test]
fn what_never_comes_has_no_next_time() {
    for text in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30-31 FEB */7"] {
        assert_eq!(cron(text).next(utc("2026-01-01T00:00:00Z"), Berlin), None, "{text}");
    }
}

#[test]
fn an_hour_that_is_skipped_moves_certain_hours_and_is_left_out_of_every_hour() {
    // Berlin, 2026-03-29: 02:00 becomes 03:00.
    let before = "2026-03-28T12:00:00Z";
    assert_eq!(ticks("30 2 * * *", before, Berlin, 2), ["03-29 03:00 +0200", "03-30 02:30 +0200"]);
    assert_eq!(
        ticks("*/15 1-3 29 3 *", "2026-03-29T00:40:00Z", Berlin, 3),
        ["03-29 01:45 +0100", "03-29 03:00 +0200", "03-29 03:15 +0200"]
    );
    assert_eq!(
        ticks("30 * * * *", "2026-03-28T23:40:00Z", Berlin, 3),
        ["03-29 01:30 +0100", "03-29 03:30 +0200", "03-29 04:30 +0200"]
    );
    // Samoa skipped the whole of 2011-12-30.
    assert_eq!(
        ticks("0 9 * * *", "2011-12-29T20:00:00Z", Apia, 2),
        ["12-31 00:00 +1400", "12-31 09:00 +1400"]
    );
    // In São Paulo, midnight became one o'clock.
    assert_eq!(ticks("0 0 * * *", "2017-10-14T12:00:00Z", Sao_Paulo, 1), ["10-15 01:00 -0200"]);
    // The clock changes by half an hour.
    assert_eq!(ticks("15 2 4 10 *", "2026-10-01T12:00:00Z", Lord_Howe, 1), ["10-04 02:30 +1100"]);
}

#[test]
fn an_hour_that_is_repeated_counts_once_for_certain_hours_and_twice_for_every_hour() {
    // Berlin, 2026-10-25: 03:00 becomes 02:00.
    assert_eq!(
        ticks("30 2 * * *", "2026-10-24T12:00:00Z", Berlin, 2),
        ["10-25 02:30 +0200", "10-26 02:30 +0100"]
    );
    assert_eq!(
        ticks("30 * * * *", "2026-10-24T23:40:00Z", Berlin, 4),
        ["10-25 02:30 +0200", "10-25 02:30 +0100", "10-25 03:30 +0100", "10-25 04:30 +0100"]
    );
    assert_eq!(
        ticks("0 */2 * * *", "2026-10-24T22:30:00Z", Berlin, 2),
        ["10-25 02:00 +0200", "10-25 04:00 +0100"]
    );
    assert_eq!(
        ticks("30 1 * * *", "2026-10-31T12:00:00Z", New_York, 2),
        ["11-01 01:30 -0400", "11-02 01:30 -0500"]
    );
    // The change crosses midnight: 00:01 became 23:01 of the day before.
    assert_eq!(
        ticks("0,30 * * * *", "2010-11-07T01:45:00Z", St_Johns, 4),
        ["11-06 23:30 -0230", "11-07 00:00 -0230", "11-06 23:30 -0330", "11-07 00:00 -0330"]
    );
}

#[test]
fn what_is_wrong_is_said_where_it_is() {
    let fault = |text: &str| {
        let faults = Cron::parse(text, "input.cron").unwrap_err();
        let fault = &faults[0];
        assert_eq!(fault.path, "input.cron");
        (faults.len(), fault.message.clone(), fault.suggestion.clone().unwrap())
    };
    let example = "0 2 * * *";
    for (text, message, suggestion) in [
        ("0 24 * * *", "the hour (field 2, at character 3) is 24, but must be 0 to 23", example),
        (
            "0 2 * * MUN",
            "the weekday (field 5, at character 9) is \"MUN\", but must be 0 to 7, or SUN to SAT",
            example,
        ),
        ("0  2 1,32 * *", "the day (field 3, at character 8) is 32, but must be 1 to 31", example),
        ("0 2 0 * *", "the day (field 3, at character 5) is 0, but must be 1 to 31", example),
        ("-5 2 * * *", "the minute (field 1, at character 1) lacks a number from 0 to 59", example),
        ("1, 2 * * *", "the minute (field 1, at character 3) lacks a number from 0 to 59", example),
        (
            "30-10 2 * * *",
            "the minute (field 1, at character 1) is the range 30-10, which runs backwards",
            example,
        ),
        (
            "*/0 2 * * *",
            "the minute (field 1, at character 3) has the step \"0\": it must be 1 or more",
            example,
        ),
        (
            "*/90 2 * * *",
            "the minute (field 1, at character 3) has the step 90, which is larger than its range",
            example,
        ),
        (
            "*/-1 2 * * *",
            "the minute (field 1, at character 3) has the step \"-1\": it must be 1 or more",
            example,
        ),
        (
            "5/10 2 * * *",
            "the minute (field 1, at character 1) has a step, but neither * nor a range before it",
            "5-59/10 2 * * *",
        ),
        (
            "1,5/10,7 2 * * *",
            "the minute (field 1, at character 3) has a step, but neither * nor a range before it",
            "1,5-59/10,7 2 * * *",
        ),
        (
            "0 2 ? * *",
            "the day (field 3, at character 5) is ?, which crontab does not support",
            "0 2 * * *",
        ),
        ("0 2 L * *", "the day (field 3, at character 5) is \"L\", but must be 1 to 31", example),
        ("0 2 é * *", "the day (field 3, at character 5) is \"é\", but must be 1 to 31", example),
        ("0 2 +1 * *", "the day (field 3, at character 5) is \"+1\", but must be 1 to 31", example),
        (
            "0 99999999999 * * *",
            "the hour (field 2, at character 3) is 99999999999, but must be 0 to 23",
            example,
        ),
        ("@daily", "shorthands are not supported: write the five fields", "0 0 * * *"),
        (
            "0 0 2 * * 1",
            "has 6 fields, but an expression has five: minute hour day month weekday",
            "0 2 * * 1",
        ),
        ("", "has 0 fields, but an expression has five: minute hour day month weekday", example),
    ] {
        assert_eq!(fault(text), (1, message.to_owned(), suggestion.to_owned()), "{text}");
    }
    assert_eq!(
        Cron::parse("60 24 * * *", "input.cron").unwrap_err().len(),
        2,
        "one error for each field"
    );
}

#[test]
fn every_suggestion_can_be_read() {
    for text in ["5/10 2 * * *", "0 2 ? * *", "@weekly", "x", "0 0 2 * * 1", "0 MON/2 * * *"] {
        for fault in Cron::parse(text, "input.cron").unwrap_err() {
            let suggestion = fault.suggestion.unwrap();
            assert!(Cron::parse(&suggestion, "input.cron").is_ok(), "{text}: {suggestion}");
        }
    }
}

/// Returns the matching times around a clock change by testing every minute: the definition, without optimisation.
fn by_minutes(
    cron: &Cron,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    zone: Tz,
) -> BTreeSet<DateTime<Utc>> {
    let matches = |time: NaiveDateTime| {
        cron.matches_date(time.date())
            && cron.hours >> time.hour() & 1 == 1
            && cron.minutes >> time.minute() & 1 == 1
    };
    let local = |instant: DateTime<Utc>| instant.with_timezone(&zone).naive_local();
    let (mut found, mut shown) = (BTreeSet::new(), BTreeSet::new());
    // Starts a day earlier, so that repeated times are recognised.
    let mut now = from - TimeDelta::days(1);
    while now <= until {
        let (time, before) = (local(now), local(now - TimeDelta::minutes(1)));
        let skipped = (1..(time - before).num_minutes())
            .any(|minute| matches(before + TimeDelta::minutes(minute)));
        let is_every_hour = cron.hours == EVERY_HOUR;
        let is_first = shown.insert(time);
        if (matches(time) && (is_first || is_every_hour)) || (skipped && !is_every_hour) {
            found.insert(now);
        }
        now += TimeDelta::minutes(1);
    }
    found.split_off(&(from + TimeDelta::minutes(1)))
}

fn field(min: u32, max: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (min..=max).prop_map(|value| value.to_string()),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (1..=(max - min)).prop_map(|step| format!("*/{step}")),
        1 => prop::collection::vec(min..=max, 1..4)
            .prop_map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Compares the search with the definition, over two days around a clock change.
    #[test]
    fn no_time_is_missed_or_made_up_where_clocks_change(
        minute in field(0, 59),
        hour in field(0, 23),
        (zone, change) in prop::sample::select(vec![
            (Berlin, "2026-03-29T01:00:00Z"), (Berlin, "2026-10-25T01:00:00Z"),
            (New_York, "2026-03-08T07:00:00Z"), (New_York, "2026-11-01T06:00:00Z"),
            (Lord_Howe, "2026-10-03T15:30:00Z"), (Lord_Howe, "2026-04-04T15:00:00Z"),
            (St_Johns, "2010-11-07T02:31:00Z"), (Sao_Paulo, "2017-10-15T03:00:00Z"),
            (Kathmandu, "2026-05-01T00:00:00Z"),
        ]),
        start in 0..1440_i64,
    ) {
        let cron = cron(&format!("{minute} {hour} * * *"));
        let from = utc(change) - TimeDelta::minutes(start);
        let until = from + TimeDelta::days(2);
        let mut walked = BTreeSet::new();
        let mut now = from;
        while let Some(next) = cron.next(now, zone).filter(|next| *next <= until) {
            prop_assert!(next > now);
            walked.insert(next);
            now = next;
        }
        prop_assert_eq!(walked, by_minutes(&cron, from, until, zone));
    }

    #[test]
    fn days_are_those_of_the_calendar(day in field(1, 31), month in field(1, 12), weekday in field(0, 7), start in 0..20_000_i64) {
        let text = format!("0 12 {day} {month} {weekday}");
        let (cron, from) = (cron(&text), utc("2000-01-01T12:00:00Z") + TimeDelta::days(start));
        if let Some(next) = cron.next(from, Berlin) {
            prop_assert!(cron.matches_date(next.date_naive()) && next > from);
            let between = from.date_naive().iter_days().skip(1).take_while(|date| *date < next.date_naive());
            prop_assert!(between.into_iter().all(|date| !cron.matches_date(date)));
        }
    }

    #[test]
    fn nothing_that_is_typed_makes_it_panic(text in "[0-9*/,\\-A-Za-zé@? ]{0,24}") {
        if let Ok(cron) = Cron::parse(&text, "input.cron") {
            let _next = cron.next(utc("2026-01-01T00:00:00Z"), Berlin);
        }
    }
}

#[test]
fn sunday_is_0_and_7() {
    assert_eq!(cron("0 0 * * 0"), cron("0 0 * * 7"));
    assert_eq!(cron("0 0 * * 0"), cron("0 0 * * sun"));
    let next = cron("0 0 * * 7").next(utc("2026-01-01T00:00:00Z"), Tz::UTC).unwrap();
    assert_eq!(next.weekday(), Weekday::Sun);
}

//! What people write wrong, and what they are told.

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Small {
    #[expect(dead_code, reason = "only its reading is tested")]
    address: String,
    #[expect(dead_code, reason = "only its reading is tested")]
    every: Period,
}

fn problem(text: &str) -> Problem {
    match ConfigText::new("city.toml", text).parse::<Small>() {
        Err(ConfigError::Wrong(mut problems)) => problems.remove(0),
        other => panic!("expected a problem, got {other:?}"),
    }
}

#[test]
fn durations_are_read_as_people_write_them() {
    for (text, ms) in
        [("500ms", 500), ("5s", 5_000), ("1min", 60_000), ("1 h", 3_600_000), ("7d", 604_800_000), ("0s", 0)]
    {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
    }
    for text in ["", "5", "s", "-5s", "1.5h", "5m", "5sec", "99999999999999999999s", "99999999999999999d"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    assert!("0s".parse::<Period>().is_err());
}

#[test]
fn sizes_are_read_as_people_write_them() {
    assert_eq!(parse_size("1GiB"), Ok(1 << 30));
    assert_eq!(parse_size("64kB"), Ok(64_000));
    assert!(parse_size("1G").is_err());
    assert!(parse_size("99999999999TiB").is_err());
}

#[test]
fn an_error_names_file_line_column_and_what_would_be_right() {
    let problem = problem("address = \"x\"\n  evry = \"1h\"\n");
    assert_eq!((problem.line, problem.column), (2, 3));
    assert_eq!(problem.hint.as_deref(), Some("did you mean `every`?"));
    let shown = problem.to_string();
    for part in ["city.toml:2:3", "unknown field `evry`", "evry = \"1h\"", "^^^^", "hint: did you mean `every`?"] {
        assert!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
}

/// serde's own words are for programmers; a technician needs to know what to write.
#[test]
fn what_would_be_right_is_said() {
    for (text, hint) in [
        ("every = \"1h\"\n", "add `address = …`"),
        ("address = 5\nevery = \"1h\"\n", "write it in double quotes"),
        ("address = \"x\"\nevery = \"1h\"\nfoo = 1\n", "take it out, or write one of those that are expected"),
        ("hello world\n", "a line is `key = value`"),
        ("address = \"x\"\naddress = \"y\"\n", "name each key once"),
    ] {
        let problem = problem(text);
        let said = problem.hint.clone().unwrap_or_default();
        assert!(said.starts_with(hint), "{text:?}: {problem}");
    }
}

/// "Write a whole number, without quotes" was said of one; "is not a duration" of one that is.
#[test]
fn a_number_that_is_too_large_is_told_as_that() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Numbers {
        whole: toml::Spanned<i64>,
    }
    for number in ["99999999999999999999", "9223372036854775808", "18446744073709551616"] {
        let shape: Shape<Numbers> = ConfigText::new("city.toml", format!("whole = {number}\n")).shape();
        let [problem] = &shape.problems[..] else { panic!("{:?}", shape.problems) };
        assert_eq!(problem.message, format!("the number {number} is too large"));
        assert!(problem.hint.as_deref().is_some_and(|hint| hint.starts_with("write a smaller one")), "{problem}");
    }
    for text in ["99999999999999999999s", "99999999999999999d", "18446744073709551615 ms"] {
        assert_eq!(parse_duration(text), Err(QuantityError::TooLong(text.to_owned())));
    }
    assert_eq!(parse_duration("53000000d").map(|long| long.as_secs()), Ok(53_000_000 * 86_400));
    assert_eq!(parse_size("16777216TiB"), Err(QuantityError::TooLarge("16777216TiB".to_owned())));
    assert!(parse_size("16777215TiB").is_ok());
}

#[test]
fn a_guess_is_one_that_a_person_would_make() {
    let types = || ["bool", "u8", "u16", "i16", "u32", "f32", "f64", "bcd16"].into_iter();
    for (wrong, meant) in
        [("f23", Some("f32")), ("boole", Some("bool")), ("u15", Some("u16")), ("string", None), ("x", None)]
    {
        assert_eq!(nearest(wrong, types()), meant, "{wrong}");
    }
}

/// Somebody who writes a file by hand makes more than one mistake, and wants to hear of them all.
#[test]
fn all_that_has_the_wrong_shape_is_said_at_once() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Large {
        version: toml::Spanned<i64>,
        small: Vec<Small>,
    }
    let text = "vers = 1\n[[small]]\nadress = 'x'\nevery = 5\n[[small]]\nevery = '1h'\ncolour = 3\n[[small]]\naddress = 'y'\nevery = '1h'\n";
    let shape: Shape<Large> = ConfigText::new("city.toml", text).shape();
    let said: Vec<(usize, &str)> =
        shape.problems.iter().map(|problem| (problem.line, problem.hint.as_deref().unwrap_or(""))).collect();
    assert_eq!(said.len(), 5, "{:#?}", shape.problems);
    assert_eq!(said[0], (1, "did you mean `version`?"));
    assert_eq!(said[1], (3, "did you mean `address`?"));
    assert_eq!(said[2], (4, "write it in double quotes"));
    assert!(said[3].0 == 5 && said[3].1.starts_with("add `address"), "{said:?}");
    assert_eq!(said[4].0, 7);
    let value = shape.value.expect("what is right is there");
    assert_eq!((*value.version.get_ref(), value.small.len(), shape.complete), (1, 1, false));
}

#[test]
fn every_line_that_is_no_toml_is_told() {
    let text = "version = \nname = \"a\"\nother = = 2\n";
    let shape: Shape<toml::Table> = ConfigText::new("city.toml", text).shape();
    let lines: Vec<usize> = shape.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 3]);
    assert!(shape.value.is_none());
}

#[test]
fn a_file_in_another_encoding_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("city.toml");
    std::fs::write(&path, b"version = 1\nname = \"\xe5\"\n").expect("written");
    match ConfigText::read(&path) {
        Err(ConfigError::Wrong(problems)) => assert_eq!((problems[0].line, problems[0].column), (2, 9)),
        other => panic!("expected a problem, got {other:?}"),
    }
}

#[test]
fn a_wrong_duration_is_underlined() {
    let problem = problem("address = \"æøå\"\nevery = \"1 hour\"\n");
    assert_eq!((problem.line, problem.column), (2, 9));
    assert!(problem.to_string().contains("is not a duration"), "{problem}");
}

/// A file with points by the thousand and a warning at many of them.
fn long(points: usize) -> String {
    let point = |number: usize| {
        format!("[[point]] # the {number}th\nsensor = 'tarn/p{number}'\nregister = \"input:{number}\"\nevery = '1h'\n")
    };
    let head = "poll = \"LOGIN token=hunter2\"\n[lake]\nurl = \"s3://key:hunter2@bucket/x\"\n".to_owned();
    head + &(0..points).map(point).collect::<String>()
}

/// How many bytes and strings are looked at for a file with a warning at each tenth point.
fn work_of(points: usize) -> (usize, usize) {
    let text = ConfigText::new("city.toml", long(points));
    let looked_at = strings::work::of(|| {
        assert!(text.first_secret().is_some() && !text.without_secrets().contains("hunter2"));
        for (place, _) in text.text().match_indices("register").step_by(10) {
            let problem = text.problem(place..place + 8, "read as something else", Some("`every = '1h'`?".to_owned()));
            assert!(problem.to_string().contains("register = "), "{problem}");
        }
    });
    (looked_at, text.text().len())
}

/// Each warning went over all strings of the file again, for each `=` in it: a minute of computing for a thousand points, in
/// which nothing was polled and no reload taken.
#[test]
fn reading_twice_as_long_a_file_is_twice_the_work() {
    let (once, bytes) = work_of(500);
    let (twice, _) = work_of(1_000);
    assert!(once < bytes * 20, "{once} for {bytes} bytes");
    assert!(twice * 2 < once * 5, "{once} for 500 points, {twice} for 1000");
}

/// Only the lines that a problem shows are given to what draws them: it must draw the same.
#[test]
fn a_problem_is_shown_as_in_the_whole_file() {
    let text = "a = 1\n\nb = \"æøå\"\n# x\n[c]\nd = 'secret'\ne = 2\nf = 3\n\ng = 4\nh = 5\ni = 6";
    for text in [text.to_owned(), format!("{text}\n"), text.replace('\n', "\r\n")] {
        let config = ConfigText::new("city.toml", text.as_str());
        let places: Vec<usize> = (0..=text.len()).collect();
        for (start, other) in places.iter().flat_map(|start| [(*start, None), (*start, Some(13)), (*start, Some(40))]) {
            let remark = Remark {
                span: start..start + 3,
                message: "wrong".to_owned(),
                related: other.into_iter().map(|other| (other..other + 2, "see here".to_owned())).collect(),
                ..Remark::default()
            };
            let place = AnnotationKind::Primary.span(config.first_line_of(&remark.span));
            let related = remark
                .related
                .iter()
                .map(|(span, label)| AnnotationKind::Context.span(config.first_line_of(span)).label(label.as_str()));
            let whole = Snippet::source(text.as_str()).path("city.toml").annotation(place).annotations(related);
            let whole = Renderer::plain().render(&[Level::ERROR.primary_title("wrong").element(whole)]);
            assert_eq!(config.problem_of(remark).to_string(), whole, "{start}, {other:?}");
        }
    }
}

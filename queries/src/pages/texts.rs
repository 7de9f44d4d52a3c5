//! Every word that residents read, in one place: a language is one value of [`Texts`].

use crate::latest::Condition;

/// The words of one language.
#[derive(Debug)]
pub(crate) struct Texts {
    /// The language, as `lang` wants it.
    pub(crate) language: &'static str,
    pub(crate) title: &'static str,
    pub(crate) lead: &'static str,
    pub(crate) simulated: &'static str,
    pub(crate) skip: &'static str,
    pub(crate) home: &'static str,
    pub(crate) bathing_places: &'static str,
    pub(crate) other_places: &'static str,
    pub(crate) no_places: &'static str,
    pub(crate) just_now: &'static str,
    pub(crate) rising: &'static str,
    pub(crate) falling: &'static str,
    pub(crate) steady: &'static str,
    pub(crate) last_hours: &'static str,
    pub(crate) last_day: &'static str,
    pub(crate) lowest: &'static str,
    pub(crate) highest: &'static str,
    pub(crate) last_value: &'static str,
    pub(crate) never: &'static str,
    pub(crate) as_table: &'static str,
    pub(crate) time: &'static str,
    pub(crate) no_curve: &'static str,
    pub(crate) choose_span: &'static str,
    pub(crate) open_data: &'static str,
    pub(crate) open_data_lead: &'static str,
    pub(crate) times_note: &'static str,
    pub(crate) not_found: &'static str,
    pub(crate) not_found_lead: &'static str,
    pub(crate) unavailable: &'static str,
    pub(crate) unavailable_lead: &'static str,
    pub(crate) months: [&'static str; 12],
    pub(crate) short_weekdays: [&'static str; 7],
    pub(crate) decimal_point: &'static str,
    /// What a sensor's condition means for a reader.
    pub(crate) condition: fn(Condition) -> &'static str,
    /// `for 4 sekunder siden`.
    pub(crate) age: fn(i64) -> String,
    /// `siste 7 dager`.
    pub(crate) span: fn(u32) -> &'static str,
    /// What a quantity is called.
    pub(crate) quantity: fn(&str) -> Option<&'static str>,
    /// A table's caption.
    pub(crate) caption: fn(what: &str, days: u32) -> String,
    /// One sentence that says what a chart shows.
    pub(crate) summary: fn(Summary<'_>) -> String,
}

/// What a chart shows, as texts.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) what: &'a str,
    pub(crate) span: &'a str,
    pub(crate) low: &'a str,
    pub(crate) high: &'a str,
    pub(crate) last: &'a str,
}

/// Norwegian, bokmål.
pub(crate) static NB: Texts = Texts {
    language: "nb",
    title: "Badetemperatur",
    lead: "Temperaturen i vannet, slik måleren sist meldte den.",
    simulated: "Verdiene er simulert. Dette er en demonstrasjon, og ingen av tallene er målt i virkeligheten.",
    skip: "Hopp til innholdet",
    home: "Alle badeplasser",
    bathing_places: "Badeplasser",
    other_places: "Andre målinger",
    no_places: "Ingen åpne målinger ennå.",
    just_now: "akkurat nå",
    rising: "stiger",
    falling: "synker",
    steady: "stabil",
    last_hours: "siste 3 timer",
    last_day: "Siste døgn",
    lowest: "lavest",
    highest: "høyest",
    last_value: "Sist",
    never: "ingen måling ennå",
    as_table: "Vis tallene som tabell",
    time: "Tid",
    no_curve: "Ingen målinger i dette tidsrommet.",
    choose_span: "Tidsrom",
    open_data: "flere spørringer",
    open_data_lead: "Tallene er åpne: ",
    times_note: "Alle klokkeslett er norsk tid.",
    not_found: "Fant ikke siden",
    not_found_lead: "Stedet finnes ikke, eller det har ingen åpne målinger.",
    unavailable: "Siden er ikke tilgjengelig nå",
    unavailable_lead: "Målingene kan ikke hentes akkurat nå. Prøv igjen om litt.",
    months: [
        "januar",
        "februar",
        "mars",
        "april",
        "mai",
        "juni",
        "juli",
        "august",
        "september",
        "oktober",
        "november",
        "desember",
    ],
    short_weekdays: ["ma.", "ti.", "on.", "to.", "fr.", "lø.", "sø."],
    decimal_point: ",",
    condition: nb_condition,
    age: nb_age,
    span: nb_span,
    quantity: nb_quantity,
    caption: |what, days| {
        let each = if days == 1 { "10 minutter" } else { "én time" };
        format!(
            "{what}, {}. Hvert tall står for {each}, fra klokkeslettet og utover. Det nyeste står øverst.",
            nb_span(days)
        )
    },
    summary: |summary| {
        let Summary { what, span, low, high, last } = summary;
        format!("{what}, {span}: lavest {low}, høyest {high}, sist {last}.")
    },
};

const fn nb_condition(condition: Condition) -> &'static str {
    match condition {
        Condition::Fresh => "Måleren virker",
        Condition::Late => "Ingen fersk måling",
        Condition::Silent => "Måleren svarer ikke",
        Condition::Wrong => "Måleren gir ugyldige verdier",
        Condition::Waiting => "Ingen måling ennå",
    }
}

fn nb_age(seconds: i64) -> String {
    let (count, one, many) = match seconds {
        ..=0 => return NB.just_now.to_owned(),
        1..=59 => (seconds, "sekund", "sekunder"),
        60..=3_599 => (seconds / 60, "minutt", "minutter"),
        3_600..=86_399 => (seconds / 3_600, "time", "timer"),
        _ => (seconds / 86_400, "dag", "dager"),
    };
    format!("for {count} {} siden", if count == 1 { one } else { many })
}

const fn nb_span(days: u32) -> &'static str {
    match days {
        1 => "siste døgn",
        7 => "siste 7 dager",
        _ => "siste 30 dager",
    }
}

fn nb_quantity(quantity: &str) -> Option<&'static str> {
    Some(match quantity {
        "water_temperature" => "Vanntemperatur",
        "air_temperature" => "Lufttemperatur",
        "wind_speed" => "Vindstyrke",
        "wind_gust" => "Vindkast",
        "wind_direction" => "Vindretning",
        "humidity" | "relative_humidity" => "Luftfuktighet",
        "pressure" | "air_pressure" => "Lufttrykk",
        "rain" | "precipitation" => "Nedbør",
        "water_level" => "Vannstand",
        "discharge" => "Vannføring",
        "conductivity" => "Ledningsevne",
        "turbidity" => "Turbiditet",
        "global_radiation" => "Solstråling",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_as_people_say_them() {
        for (seconds, text) in [
            (-5, "akkurat nå"),
            (0, "akkurat nå"),
            (1, "for 1 sekund siden"),
            (4, "for 4 sekunder siden"),
            (60, "for 1 minutt siden"),
            (3_599, "for 59 minutter siden"),
            (3_600, "for 1 time siden"),
            (86_399, "for 23 timer siden"),
            (86_400, "for 1 dag siden"),
            (400 * 86_400, "for 400 dager siden"),
        ] {
            assert_eq!((NB.age)(seconds), text);
        }
    }
}

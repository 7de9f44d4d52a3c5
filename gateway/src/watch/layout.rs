//! How the table of `watch` fits into a terminal: what is shortened first, and what goes.
//!
//! The names of buses, devices and sensors are shortened in their middle, in this order, and not to less than can be told apart.
//! Where that does not do the round trips go, then buses and devices; in the narrowest terminals each point has its
//! sensor in a line and the rest in those below. What is never cut: a value with its unit, its age, its state.

const HEADINGS: [&str; 7] = ["BUS", "DEVICE", "SENSOR", "VALUE", "AGE", "ROUND TRIP", "STATE"];

/// Columns of numbers stand to the right.
const RIGHT: [bool; 7] = [false, false, false, true, true, true, false];

/// The columns whose names may be shortened, in this order, and to what.
const NAMES: [(usize, usize); 3] = [(0, 4), (1, 6), (2, 16)];

/// Which columns are shown where there is room for them, the most first.
const SHOWN: [&[usize]; 3] = [&[0, 1, 2, 3, 4, 5, 6], &[0, 1, 2, 3, 4, 6], &[2, 3, 4, 6]];

/// Between two columns.
const BETWEEN: usize = 2;

/// The lines of a table, with its headings, none longer than so many columns.
pub(super) fn lines(rows: &[[String; 7]], columns: usize) -> Vec<String> {
    let mut widths = HEADINGS.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let fitted = SHOWN.iter().find_map(|shown| Some((*shown, fit(widths, shown, columns)?)));
    match fitted {
        Some((shown, widths)) => {
            let headings = HEADINGS.map(str::to_owned);
            std::iter::once(&headings).chain(rows).map(|row| line(row, shown, widths)).collect()
        }
        None => rows.iter().flat_map(|row| stacked(row, columns)).collect(),
    }
}

/// The widths of the columns that are shown, with names as short as they have to be; nothing where that does not do.
fn fit(mut widths: [usize; 7], shown: &[usize], columns: usize) -> Option<[usize; 7]> {
    let total = shown.iter().map(|column| widths[*column] + BETWEEN).sum::<usize>() - BETWEEN;
    let mut over = total.saturating_sub(columns);
    for (column, least) in NAMES.into_iter().filter(|(column, _)| shown.contains(column)) {
        let given = over.min(widths[column].saturating_sub(least));
        widths[column] -= given;
        over -= given;
    }
    (over == 0).then_some(widths)
}

fn line(row: &[String; 7], shown: &[usize], widths: [usize; 7]) -> String {
    let mut line = String::new();
    for column in shown {
        let (width, cell) = (widths[*column], shortened(&row[*column], widths[*column]));
        line += &if RIGHT[*column] { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
    }
    line.trim_end().to_owned()
}

/// A point in lines of its own.
fn stacked(row: &[String; 7], columns: usize) -> Vec<String> {
    let mut lines = vec![shortened(&row[2], columns)];
    let mut line = String::new();
    for word in [&row[3], &row[4], &row[6]].into_iter().flat_map(|cell| pieces(cell, columns - BETWEEN)) {
        let is_full = line.chars().count() + BETWEEN + word.chars().count() > columns;
        if is_full && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        line += &format!("{:BETWEEN$}{word}", "");
    }
    lines.push(line);
    lines
}

/// A cell, or where it is wider than a line as many words in each piece as there is room for; a word that is wider is cut up.
fn pieces(cell: &str, columns: usize) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for word in cell.split(' ') {
        let characters: Vec<char> = word.chars().collect();
        for part in characters.chunks(columns.max(1)) {
            let part: String = part.iter().collect();
            match pieces.last_mut() {
                Some(last) if last.chars().count() + 1 + part.chars().count() <= columns => {
                    last.push(' ');
                    last.push_str(&part);
                }
                _ => pieces.push(part),
            }
        }
    }
    pieces
}

/// A name without its middle, where it is longer than that: its end says more than what lies before it.
fn shortened(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let kept = width.saturating_sub(1);
    let first = kept / 2;
    let last: String = name.chars().skip(count - (kept - first)).collect();
    name.chars().take(first).chain(std::iter::once('…')).collect::<String>() + &last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[String; 7]> {
        let row = |cells: [&str; 7]| cells.map(str::to_owned);
        vec![
            row([
                "harbour-north",
                "multiparameter-sonde",
                "harbour-north/quay-12/water_temperature",
                "12.354885 Cel",
                "500 ms",
                "8 ms",
                "ok",
            ]),
            row(["harbour-north", "meter", "harbour-north/quay-12/energy", "-", "10.0 s", "-", "timeout, device down"]),
        ]
    }

    /// On 80 columns the table ended in the middle of the sensors.
    #[test]
    fn names_are_shortened_before_anything_else() {
        let golden = [
            (138, "\
BUS            DEVICE                SENSOR                                           VALUE     AGE  ROUND TRIP  STATE
harbour-north  multiparameter-sonde  harbour-north/quay-12/water_temperature  12.354885 Cel  500 ms        8 ms  ok
harbour-north  meter                 harbour-north/quay-12/energy                         -  10.0 s           -  timeout, device down"),
            (100, "\
BUS   DEVICE  SENSOR                                 VALUE     AGE  ROUND TRIP  STATE
h…th  mu…nde  harbour-north/…er_temperature  12.354885 Cel  500 ms        8 ms  ok
h…th  meter   harbour-north/quay-12/energy               -  10.0 s           -  timeout, device down"),
            (80, "\
BUS   DEVICE  SENSOR                         VALUE     AGE  STATE
h…th  mu…nde  harbour-no…emperature  12.354885 Cel  500 ms  ok
h…th  meter   harbour-no…-12/energy              -  10.0 s  timeout, device down"),
            (60, "\
harbour-north/quay-12/water_temperature
  12.354885 Cel  500 ms  ok
harbour-north/quay-12/energy
  -  10.0 s  timeout, device down"),
            (30, "\
harbour-north/…ter_temperature
  12.354885 Cel  500 ms  ok
harbour-north/quay-12/energy
  -  10.0 s
  timeout, device down"),
        ];
        for (columns, expected) in golden {
            let shown = lines(&rows(), columns).join("\n");
            println!("{columns}:\n{shown}");
            assert_eq!(shown, expected, "{columns}");
        }
    }

    #[test]
    fn a_name_loses_its_middle() {
        assert_eq!(
            ["quay-12", "quay-1234", "ærlig/øl"].map(|name| shortened(name, 7)),
            ["quay-12", "qua…234", "ærl…/øl"]
        );
    }
}

//! A pattern as a picture: waiting messages above, pods below, over time.

use std::fmt::Write as _;

use crate::run::{POINT, Results, Scaler};

const WIDTH: u64 = 860;
const LEFT: u64 = 60;
const RIGHT: u64 = 20;
const HEIGHT: u64 = 150;
/// The upper edges of both panels.
const TOPS: [u64; 2] = [76, 276];
const BOTTOM: u64 = 480;

/// Colours that stand out on white and on black; dashes for those who do not see colours.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#57606a}\
.t{font-size:14px;font-weight:600;fill:#24292f}\
.g{stroke:#8c959f;stroke-opacity:.35}\
.l{fill:none;stroke-width:2;stroke-linejoin:round}\
.s0{stroke:#0a7d4f}\
.s1{stroke:#cf5a00;stroke-dasharray:7 3}\
.s2{stroke:#8250df;stroke-dasharray:2 3}\
.s3{stroke:#0969da;stroke-dasharray:10 3 2 3}\
@media(prefers-color-scheme:dark){text{fill:#9ba5b0}.t{fill:#e6edf3}\
.s0{stroke:#3fb980}.s1{stroke:#f0883e}.s2{stroke:#bc8cff}.s3{stroke:#58a6ff}}";

/// The picture of a pattern.
pub fn svg(results: &Results) -> String {
    let name = results.pattern.name;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {BOTTOM}\" width=\"{WIDTH}\" height=\"{BOTTOM}\" role=\"img\" aria-label=\"{name}: waiting messages and pods over time\">\n<style>{STYLE}</style>\n"
    );
    text += &format!("<text class=\"t\" x=\"{LEFT}\" y=\"20\">{name}</text>\n");
    legend(&mut text);
    let panels = ["waiting messages", "pods (replicas)"];
    for (panel, (title, top)) in panels.into_iter().zip(TOPS).enumerate() {
        let lines: Vec<Vec<u64>> = results
            .scalers
            .iter()
            .map(|one| one.points.iter().map(|point| value(panel, *point)).collect())
            .collect();
        let most = nice(lines.iter().flatten().copied().max().unwrap_or_default());
        axes(&mut text, title, top, most, results.pattern.lasts);
        // Capstan is drawn last, over the others.
        for (scaler, values) in lines.iter().enumerate().rev() {
            line(&mut text, scaler, values, top, most, results.pattern.lasts);
        }
    }
    text + "</svg>\n"
}

fn value(panel: usize, (replicas, waiting): (u32, u64)) -> u64 {
    if panel == 0 { waiting } else { u64::from(replicas) }
}

fn legend(text: &mut String) {
    let mut x = LEFT;
    for (index, scaler) in Scaler::ALL.into_iter().enumerate() {
        let name = scaler.name();
        let _ = writeln!(
            text,
            "<path class=\"l s{index}\" d=\"M{x} 38h28\"/><text x=\"{}\" y=\"42\">{name}</text>",
            x + 34
        );
        x += 60 + 7 * name.len() as u64;
    }
}

/// The end of an axis: the next number that four steps divide into whole ones.
fn nice(most: u64) -> u64 {
    let mut unit = 4;
    while unit * 5 < most {
        unit *= if unit.to_string().starts_with('4') { 5 } else { 2 };
    }
    most.max(1).div_ceil(unit) * unit
}

fn axes(text: &mut String, title: &str, top: u64, most: u64, lasts: u64) {
    let (end, base) = (WIDTH - RIGHT, top + HEIGHT);
    let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"{}\">{title}</text>", top - 6);
    for step in 0..=4 {
        let y = base - HEIGHT * step / 4;
        let label = most * step / 4;
        let _ = writeln!(
            text,
            "<path class=\"g\" d=\"M{LEFT} {y}H{end}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8,
            y + 4
        );
    }
    let minutes = lasts / 60;
    let every = if minutes > 90 {
        20
    } else if minutes > 40 {
        10
    } else {
        5
    };
    for minute in (0..=minutes).step_by(every) {
        let x = across(minute * 60, lasts);
        let _ = writeln!(text, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{minute}</text>", base + 17);
    }
    let _ = writeln!(text, "<text x=\"{end}\" y=\"{}\" text-anchor=\"end\">minutes</text>", base + 33);
}

fn across(at: u64, lasts: u64) -> u64 {
    LEFT + (WIDTH - LEFT - RIGHT) * at / lasts
}

/// A line of steps: a value holds until the next one.
fn line(text: &mut String, scaler: usize, values: &[u64], top: u64, most: u64, lasts: u64) {
    let mut path = String::new();
    let mut last = None;
    for (index, value) in values.iter().enumerate() {
        let (x, y) = (across((index as u64 + 1) * POINT, lasts), top + HEIGHT - HEIGHT * value / most);
        match last {
            None => path += &format!("M{x} {y}"),
            Some(before) if before != y => path += &format!("H{x}V{y}"),
            Some(_) => {}
        }
        last = Some(y);
    }
    let _ = writeln!(text, "<path class=\"l s{scaler}\" d=\"{path}H{}\"/>", WIDTH - RIGHT);
}

#[cfg(test)]
mod tests {
    use super::nice;

    #[test]
    fn axes_end_at_round_numbers() {
        let rows =
            [(0, 4), (1, 4), (4, 4), (5, 8), (20, 20), (21, 40), (90, 100), (2000, 2000), (1234, 1600)];
        for (most, end) in rows {
            assert!(nice(most).is_multiple_of(4) && nice(most) >= most, "{most}");
            assert_eq!(nice(most), end, "{most}");
        }
    }
}

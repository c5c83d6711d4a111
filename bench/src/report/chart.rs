//! Bar charts as SVG: one group per workload, one bar per broker.

use std::fmt::Write as _;

use super::figures::number;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 16.0;
const GAP: f64 = 14.0;
const COLOURS: [&str; 3] = ["#1f9e89", "#31688e", "#b0b0b0"];

/// A group of bars.
pub(crate) struct Group {
    pub(crate) title: String,
    /// Name of the broker, length of the bar, value of its label.
    pub(crate) bars: Vec<(String, f64, f64)>,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Draws the groups, each scaled to its own longest bar: workloads differ by orders of magnitude.
pub(crate) fn bars(title: &str, unit: &str, groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = 64.0 + rows as f64 * BAR + groups.len() as f64 * GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"10\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escape(title)
    );
    let names: Vec<&str> =
        groups.first().map(|group| group.bars.iter().map(|bar| bar.0.as_str()).collect()).unwrap_or_default();
    let mut x = LEFT;
    for (name, colour) in names.iter().zip(COLOURS) {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"30\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"40\">{}</text>",
            x + 16.0,
            escape(name)
        );
        x += 40.0 + name.len() as f64 * 7.0;
    }
    let mut y = 54.0;
    for group in groups {
        let longest = group.bars.iter().map(|bar| bar.1).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let middle = y + group.bars.len() as f64 * BAR / 2.0 + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            escape(&group.title)
        );
        for ((_, length, value), colour) in group.bars.iter().zip(COLOURS) {
            let width = (length / longest * (WIDTH - LEFT - RIGHT)).max(1.0);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{} {unit}</text>",
                BAR - 2.0,
                LEFT + width + 5.0,
                y + BAR - 5.0,
                number(*value)
            );
            y += BAR;
        }
        y += GAP;
    }
    svg + "</svg>\n"
}

//! The report as a chart: a bar for each case, from the median, with its minimum and maximum.

use anyhow::anyhow;
use plotters::prelude::*;

use super::report::Report;

const ROW: u32 = 26;
const WIDTH: u32 = 900;
const COLOURS: [RGBColor; 2] = [RGBColor(0x9a, 0xa5, 0xb1), RGBColor(0x2f, 0x6f, 0xb0)];

/// The chart, as the text of an SVG file.
pub fn draw(report: &Report) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw_to(report, SVGBackend::with_string(&mut svg, (WIDTH, height(report))))
        .map_err(|error| anyhow!("draw the chart: {error}"))?;
    Ok(svg)
}

fn height(report: &Report) -> u32 {
    90 + ROW * u32::try_from(report.cases.len()).unwrap_or(1)
}

fn draw_to<DB: DrawingBackend>(
    report: &Report,
    backend: DB,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    let area = backend.into_drawing_area();
    area.fill(&WHITE)?;
    let rows = f64::from(u32::try_from(report.cases.len()).unwrap_or(1));
    let most = report.cases.iter().map(|case| case.ns_max).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .margin(15)
        .caption(
            "XDP program, ns per packet (median; line: minimum to maximum)",
            ("sans-serif", 18),
        )
        .x_label_area_size(30)
        .build_cartesian_2d(-0.35 * most..most * 1.12, rows..0.0)?;
    chart.configure_mesh().disable_y_mesh().disable_y_axis().x_label_formatter(&positive).draw()?;
    for (row, case) in (0_u32..).map(f64::from).zip(&report.cases) {
        let colour = COLOURS[usize::from(!case.name.starts_with("floor"))];
        let (ns, middle) = (case.ns_median, row + 0.5);
        let label = format!("{}, {}", case.name, flows(case.flows));
        chart
            .draw_series([Rectangle::new([(0.0, row + 0.2), (ns, row + 0.8)], colour.filled())])?;
        chart.draw_series([PathElement::new(
            [(case.ns_min, middle), (case.ns_max, middle)],
            BLACK,
        )])?;
        chart.draw_series([
            Text::new(label, (-0.34 * most, row + 0.3), ("sans-serif", 14)),
            Text::new(
                format!("{ns:.1}"),
                (case.ns_max + most * 0.01, row + 0.3),
                ("sans-serif", 14),
            ),
        ])?;
    }
    area.present()
}

/// The axis has no numbers where the names are.
fn positive(ns: &f64) -> String {
    if *ns < 0.0 { String::new() } else { format!("{ns:.0}") }
}

fn flows(flows: u32) -> String {
    if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") }
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::example, *};

    #[test]
    fn the_chart_names_every_case_with_its_figure() {
        let report = example();
        let svg = draw(&report).unwrap();
        for case in &report.cases {
            let name = format!("{}, {}", case.name, flows(case.flows));
            assert!(svg.contains(&name), "{name}");
            assert!(svg.contains(&format!("{:.1}", case.ns_median)), "{name}");
        }
    }

    #[test]
    fn a_chart_of_nothing_is_drawn_as_well() {
        let mut report = example();
        report.cases.clear();
        assert!(draw(&report).unwrap().starts_with("<svg"));
    }
}

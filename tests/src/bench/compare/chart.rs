//! The comparison as charts, side by side: CPU per packet, and connections per second.

use anyhow::anyhow;
use plotters::{coord::Shift, prelude::*};

use super::report::{Comparison, Spread, System};

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 300;
const OURS: RGBColor = RGBColor(0x2f, 0x6f, 0xb0);
const OTHERS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);

type Failure<DB> = DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>;

/// The chart, as the text of an SVG file.
pub fn draw(comparison: &Comparison) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw_to(comparison, SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)))
        .map_err(|error| anyhow!("draw the chart: {error}"))?;
    Ok(svg)
}

fn draw_to<DB: DrawingBackend>(comparison: &Comparison, backend: DB) -> Result<(), Failure<DB>> {
    let area = backend.into_drawing_area();
    area.fill(&WHITE)?;
    let halves = area.split_evenly((1, 2));
    let (packets, connections) = (
        bars(comparison, |system| system.cpu_ns_per_packet),
        bars(comparison, |system| system.connections_per_second),
    );
    let panels = [
        ("CPU ns per packet (less is better)", packets),
        ("TCP connections per second (more is better)", connections),
    ];
    for (half, (caption, bars)) in halves.iter().zip(&panels) {
        panel(half, caption, bars)?;
    }
    area.present()
}

/// Those systems that have the figure.
fn bars(
    comparison: &Comparison,
    figure: impl Fn(&System) -> Option<Spread>,
) -> Vec<(&'static str, Spread)> {
    comparison.systems.iter().filter_map(|one| Some((one.name, figure(one)?))).collect()
}

fn panel<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    caption: &str,
    bars: &[(&str, Spread)],
) -> Result<(), Failure<DB>> {
    let rows = f64::from(u32::try_from(bars.len().max(1)).unwrap_or(1));
    let most = bars.iter().map(|(_, spread)| spread.max).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(15)
        .caption(caption, ("sans-serif", 16))
        .build_cartesian_2d(-0.4 * most..most * 1.25, rows..0.0)?;
    for (row, (name, spread)) in (0_u32..).map(f64::from).zip(bars) {
        let colour = if *name == "dr" { OURS } else { OTHERS };
        let Spread { min, median, max } = *spread;
        let bar = [(0.0, row + 0.2), (median, row + 0.8)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        let line = [(min, row + 0.5), (max, row + 0.5)];
        chart.draw_series([PathElement::new(line, BLACK)])?;
        let font = ("sans-serif", 13);
        chart.draw_series([
            Text::new((*name).to_owned(), (-0.4 * most, row + 0.35), font),
            Text::new(format!("{median:.0}"), (max + most * 0.02, row + 0.35), font),
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::example, *};

    #[test]
    fn the_chart_has_a_bar_for_each_figure() {
        let mut comparison = example();
        let svg = draw(&comparison).unwrap();
        assert_eq!(svg.matches("20000").count(), 2, "DR and nginx");
        assert_eq!(svg.matches("\n300\n").count(), 1, "DR alone");
        comparison.systems.clear();
        assert!(draw(&comparison).unwrap().starts_with("<svg"));
    }
}

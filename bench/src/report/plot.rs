//! The plot: a bar for each server, drawn without the fonts of any system.

use std::convert::Infallible;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use embedded_graphics::mono_font::ascii::{FONT_9X15, FONT_9X15_BOLD};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};

use super::{Carried, Row, Section, receivers};
use crate::args::Which;

const WIDTH: u32 = 1200;
const MARGIN: i32 = 16;
const LINE: i32 = 20;
/// Where bars begin, and how long the longest is.
const BARS_AT: i32 = 190;
const BAR_MAX: f64 = 560.0;
const INK: Rgb888 = Rgb888::new(0x22, 0x22, 0x22);
const PAPER: Rgb888 = Rgb888::new(0xFF, 0xFF, 0xFF);

/// Bars that belong together.
struct Group {
    title: String,
    bars: Vec<Bar>,
}

struct Bar {
    which: Which,
    value: f64,
    label: String,
}

/// Draws what packets cost, and what the servers could carry if that was searched for.
pub(crate) fn write_plot(path: &Path, sections: &[(Section, Vec<Carried>)]) -> Result<()> {
    let costs: Vec<Group> = sections.iter().flat_map(|(s, _)| cost_groups(s)).collect();
    let most: Vec<Group> = sections
        .iter()
        .flat_map(|(s, c)| most_groups(s, c))
        .collect();
    let charts = [
        ("CPU time of a forwarded packet, in calib units", costs),
        ("The most viewers", most),
    ];
    let charts: Vec<_> = charts.iter().filter(|(_, g)| !g.is_empty()).collect();
    let lines = |groups: &Vec<Group>| groups.iter().map(|g| g.bars.len() + 2).sum::<usize>();
    let lines: usize = charts.iter().map(|(_, groups)| lines(groups) + 2).sum();
    let mut canvas = Canvas::new(lines as u32 * LINE as u32 + 2 * MARGIN as u32);
    let mut y = MARGIN;
    for (title, groups) in charts {
        canvas.text(&FONT_9X15_BOLD, MARGIN, y, title);
        y = draw(&mut canvas, y + 2 * LINE, groups);
    }
    canvas.write(path)
}

fn cost_groups(section: &Section) -> Vec<Group> {
    let group = |is_coalescing| Group {
        title: format!("{}, {}", title(section), receivers(is_coalescing)),
        bars: section.rows(is_coalescing).iter().map(cost_bar).collect(),
    };
    let groups = [false, true].map(group);
    groups.into_iter().filter(|g| !g.bars.is_empty()).collect()
}

fn cost_bar(row: &Row) -> Bar {
    let mut label = format!("{:.2} ({:.1} us)", row.calib_units, row.ns / 1e3);
    if let Some(ratio) = row.to_limit.filter(|_| row.which != Which::Limit) {
        label += &format!(", {ratio:.2} x limit");
    }
    if row.loss >= 0.001 {
        label += &format!(", {:.1} % lost", row.loss * 100.0);
    }
    Bar {
        which: row.which,
        value: row.calib_units,
        label,
    }
}

fn most_groups(section: &Section, carried: &[Carried]) -> Vec<Group> {
    let group = |is_coalescing| {
        let own = carried
            .iter()
            .filter(|of| of.is_coalescing == is_coalescing);
        let bar = |of: &Carried| Bar {
            which: of.which,
            value: f64::from(of.viewers),
            label: format!("{}{}", if of.is_open { ">=" } else { "" }, of.viewers),
        };
        Group {
            title: format!("{}, {}", title(section), receivers(is_coalescing)),
            bars: own.map(bar).collect(),
        }
    };
    let groups = [false, true].map(group);
    groups.into_iter().filter(|g| !g.bars.is_empty()).collect()
}

fn title(section: &Section) -> String {
    format!("{}, {}", section.plan.name, section.protection.name)
}

/// Draws groups from `y` on, all on one scale, and returns where they end.
fn draw(canvas: &mut Canvas, mut y: i32, groups: &[Group]) -> i32 {
    let values = groups.iter().flat_map(|group| &group.bars);
    let longest = values
        .map(|bar| bar.value)
        .fold(f64::MIN_POSITIVE, f64::max);
    for group in groups {
        canvas.text(&FONT_9X15, MARGIN, y, &group.title);
        y += LINE;
        for bar in &group.bars {
            let len = (bar.value / longest * BAR_MAX) as u32;
            canvas.text(&FONT_9X15, MARGIN + 9, y, bar.which.name());
            canvas.bar(BARS_AT, y, len.max(1), color(bar.which));
            let behind = BARS_AT + len as i32 + 9;
            canvas.text(&FONT_9X15, behind, y, &bar.label);
            y += LINE;
        }
        y += LINE;
    }
    y
}

fn color(which: Which) -> Rgb888 {
    match which {
        Which::Limit => Rgb888::new(0xB0, 0xB0, 0xB0),
        Which::Broth => Rgb888::new(0x2E, 0x7D, 0x32),
        Which::Unrecorded => Rgb888::new(0x81, 0xC7, 0x84),
        Which::Original => Rgb888::new(0xC6, 0x28, 0x28),
    }
}

/// Pixels in memory.
struct Canvas {
    height: u32,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(height: u32) -> Self {
        let pixels = vec![PAPER.r(); (WIDTH * height * 3) as usize];
        Self { height, pixels }
    }

    fn text(&mut self, font: &MonoFont<'_>, x: i32, y: i32, text: &str) {
        let style = MonoTextStyle::new(font, INK);
        let text = Text::with_baseline(text, Point::new(x, y), style, Baseline::Top);
        let Ok(_) = text.draw(self);
    }

    fn bar(&mut self, x: i32, y: i32, len: u32, color: Rgb888) {
        let size = Size::new(len, LINE as u32 - 5);
        let bar = Rectangle::new(Point::new(x, y), size);
        let Ok(()) = bar.into_styled(PrimitiveStyle::with_fill(color)).draw(self);
    }

    fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
        let mut encoder = png::Encoder::new(BufWriter::new(file), WIDTH, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&self.pixels)?;
        Ok(())
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(WIDTH, self.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        let area = self.bounding_box();
        for Pixel(point, color) in pixels.into_iter().filter(|p| area.contains(p.0)) {
            let at = (point.y as usize * WIDTH as usize + point.x as usize) * 3;
            self.pixels[at..at + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::section;
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let section = section(&[(Which::Limit, true, 2, 1000), (Which::Broth, true, 4, 1000)]);
        let groups = cost_groups(&section);
        assert_eq!(groups.len(), 1);
        let mut canvas = Canvas::new(200);
        draw(&mut canvas, 0, &groups);
        let count = |which| {
            let color = color(which);
            let wanted = [color.r(), color.g(), color.b()];
            canvas
                .pixels
                .chunks(3)
                .filter(|pixel| *pixel == wanted)
                .count()
        };
        assert!(count(Which::Limit) > 0);
        assert_eq!(count(Which::Broth), 2 * count(Which::Limit));
    }

    #[test]
    fn what_is_written_is_a_picture() {
        let path = std::env::temp_dir().join(format!("broth-plot-{}.png", std::process::id()));
        let carried = Carried {
            which: Which::Broth,
            is_coalescing: true,
            viewers: 700,
            is_open: true,
        };
        let sections = [(section(&[(Which::Limit, true, 2, 1000)]), vec![carried])];
        write_plot(&path, &sections).unwrap();
        let file = std::io::BufReader::new(File::open(&path).unwrap());
        let reader = png::Decoder::new(file).read_info().unwrap();
        assert_eq!(reader.info().width, WIDTH);
        std::fs::remove_file(path).unwrap();
    }
}

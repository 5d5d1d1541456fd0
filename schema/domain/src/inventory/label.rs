//! The QR code on an asset's label. The QR code contains only the asset's short code, so that a label stays valid if
//! the server's address changes.
//!
//! A module is one dark or light square of the QR code. The error correction level is M, which tolerates damage to
//! about a seventh of the QR code. The border is two modules wide.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use qrcode::{Color, EcLevel, QrCode};

/// Width of the white border, in modules.
const BORDER: usize = 2;
/// Width and height of a module in an SVG document, in user units.
const SVG_SCALE: usize = 4;
/// Width and height of a module in a PNG image, in pixels.
const PNG_SCALE: usize = 6;

/// Returns the QR code of a short code as an SVG document.
pub fn svg(code: &str) -> String {
    let modules = Modules::of(code);
    let size = modules.size() * SVG_SCALE;
    let mut dark = String::new();
    for (row, line) in modules.lines().enumerate() {
        // Adjacent modules become one shape, because separate shapes would show hairlines between them.
        let mut column = 0;
        while column < line.len() {
            let length = line[column..].iter().take_while(|module| **module).count();
            if length > 0 {
                let (x, y) = ((column + BORDER) * SVG_SCALE, (row + BORDER) * SVG_SCALE);
                let width = length * SVG_SCALE;
                write!(dark, "M{x} {y}h{width}v{SVG_SCALE}h-{width}z")
                    .expect("writing to a string cannot fail");
            }
            column += length.max(1);
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{size}\" height=\"{size}\" viewBox=\"0 0 {size} {size}\" \
         shape-rendering=\"crispEdges\"><path fill=\"#fff\" d=\"M0 0h{size}v{size}h-{size}z\"/><path fill=\"#000\" d=\"{dark}\"/></svg>"
    )
}

/// Returns the QR code of a short code as a PNG image in a `data:` URL.
pub fn png_data_url(code: &str) -> String {
    let modules = Modules::of(code);
    let size = modules.size() * PNG_SCALE;
    let bytes_a_line = size.div_ceil(8);
    let mut pixels = vec![0xff_u8; bytes_a_line * size]; // White, one bit per pixel.
    for (row, line) in modules.lines().enumerate() {
        let top = (row + BORDER) * PNG_SCALE;
        for x in (0..line.len() * PNG_SCALE).filter(|x| line[x / PNG_SCALE]) {
            let x = x + BORDER * PNG_SCALE;
            for y in top..top + PNG_SCALE {
                pixels[y * bytes_a_line + x / 8] &= !(0x80 >> (x % 8));
            }
        }
    }
    let mut file = Vec::new();
    let pixels_a_line = u32::try_from(size).expect("a label is a few hundred pixels wide");
    let mut encoder = png::Encoder::new(&mut file, pixels_a_line, pixels_a_line);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&pixels))
        .expect("writing to memory cannot fail, and the image has the size in its header");
    format!("data:image/png;base64,{}", STANDARD.encode(file))
}

/// The modules of a QR code, line by line; true is dark.
struct Modules {
    width: usize,
    dark: Vec<bool>,
}

impl Modules {
    fn of(code: &str) -> Self {
        let code = QrCode::with_error_correction_level(code, EcLevel::M)
            .expect("a short code has at most 16 characters, and a QR code holds 2,331 bytes");
        let dark = code.to_colors().into_iter().map(|color| color == Color::Dark).collect();
        Self { width: code.width(), dark }
    }

    /// Returns the width and height of the QR code in modules, including the border.
    const fn size(&self) -> usize {
        self.width + 2 * BORDER
    }

    fn lines(&self) -> impl Iterator<Item = &[bool]> {
        self.dark.chunks(self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes the QR code in a picture, as a scanner does.
    fn read(size: usize, is_dark: impl Fn(usize, usize) -> bool) -> String {
        let mut image = rqrr::PreparedImage::prepare_from_bitmap(size, size, is_dark);
        let grids = image.detect_grids();
        let [grid] = grids.as_slice() else { panic!("{} codes", grids.len()) };
        let (meta, text) = grid.decode().unwrap();
        assert_eq!(meta.ecc_level, 0, "correction level M");
        text
    }

    #[test]
    fn a_png_reads_as_the_short_code() {
        for code in ["HST-4F7K2", "LIC-0123456789AB"] {
            let url = png_data_url(code);
            let file =
                STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
            let mut decoder = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
            let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
            let info = decoder.next_frame(&mut pixels).unwrap();
            let (size, line) = (info.width as usize, info.line_size);
            assert_eq!(size, (Modules::of(code).width + 4) * 6);
            let text = read(size, |x, y| pixels[y * line + x / 8] & (0x80 >> (x % 8)) == 0);
            assert_eq!(text, code);
        }
    }

    #[test]
    fn an_svg_reads_as_the_short_code() {
        let code = "HST-4F7K2";
        let svg = svg(code);
        let size = (Modules::of(code).width + 4) * 4;
        assert!(svg.contains(&format!("viewBox=\"0 0 {size} {size}\"")), "{svg}");
        let path = svg.rsplit_once("d=\"").unwrap().1.split('"').next().unwrap();
        let mut dark = vec![false; size * size];
        for stroke in path.split('z').filter(|stroke| !stroke.is_empty()) {
            let numbers: Vec<usize> = stroke
                .split(|letter: char| !letter.is_ascii_digit())
                .filter_map(|number| number.parse().ok())
                .collect();
            let [x, y, width, height, back] = numbers[..] else { panic!("{stroke}") };
            assert_eq!(width, back);
            for y in y..y + height {
                dark[y * size + x..y * size + x + width].fill(true);
            }
        }
        assert_eq!(read(size, |x, y| dark[y * size + x]), code);
    }
}

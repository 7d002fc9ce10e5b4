//! The stamps of one FITS file of plain float32 image extensions.

const BLOCK: usize = 2880;
const CHANNELS: [&str; 3] = ["SCIENCE", "REFERENCE", "DIFFERENCE"];

/// Science, reference and difference, (3, height, width), NaN where the file lacks one.
pub struct Stamps {
    pub pixels: Vec<f32>,
    pub height: usize,
    pub width: usize,
    /// Pixels; 0 where unknown.
    pub fwhm: f32,
}

#[derive(Default)]
struct Header {
    name: String,
    bitpix: i64,
    axes: usize,
    width: usize,
    height: usize,
    fwhm: f32,
}

pub fn read(bytes: &[u8]) -> Result<Stamps, String> {
    let mut stamps: Option<Stamps> = None;
    let mut at = 0;
    while at + BLOCK <= bytes.len() {
        let (header, data) = header(bytes, at)?;
        let pixels = if header.axes == 2 { header.width * header.height } else { 0 };
        let size = pixels * (header.bitpix.unsigned_abs() as usize / 8);
        at = data + size.div_ceil(BLOCK) * BLOCK;
        let Some(channel) = CHANNELS.iter().position(|name| *name == header.name) else { continue };
        if header.bitpix != -32 || pixels == 0 || data + size > bytes.len() {
            return Err(format!("{} is not a whole float32 stamp", header.name));
        }
        let found = stamps.get_or_insert_with(|| Stamps {
            pixels: vec![f32::NAN; 3 * pixels],
            height: header.height,
            width: header.width,
            fwhm: 0.0,
        });
        if (found.height, found.width) != (header.height, header.width) {
            return Err("stamps of different sizes".into());
        }
        if channel == 0 {
            found.fwhm = header.fwhm;
        }
        let target = &mut found.pixels[channel * pixels..(channel + 1) * pixels];
        for (pixel, four) in target.iter_mut().zip(bytes[data..data + size].chunks_exact(4)) {
            *pixel = f32::from_be_bytes([four[0], four[1], four[2], four[3]]);
        }
    }
    stamps.ok_or_else(|| "no stamps".into())
}

/// The header that begins at `at`, and where its data begin.
fn header(bytes: &[u8], mut at: usize) -> Result<(Header, usize), String> {
    let mut header = Header::default();
    loop {
        let block = bytes.get(at..at + BLOCK).ok_or("no end of a FITS header")?;
        at += BLOCK;
        for card in block.chunks_exact(80) {
            let card = String::from_utf8_lossy(card);
            let Some((key, rest)) = card.split_once('=') else {
                if card.trim_end() == "END" {
                    return Ok((header, at));
                }
                continue;
            };
            let value = rest.split('/').next().unwrap_or("").trim();
            let number = || value.parse::<usize>().unwrap_or(0);
            match key.trim() {
                "EXTNAME" => header.name = value.trim_matches(|c| c == '\'' || c == ' ').into(),
                "BITPIX" => header.bitpix = value.parse().unwrap_or(0),
                "NAXIS" => header.axes = number(),
                "NAXIS1" => header.width = number(),
                "NAXIS2" => header.height = number(),
                "FWHM" => header.fwhm = value.parse().unwrap_or(0.0),
                _ => {}
            }
        }
    }
}

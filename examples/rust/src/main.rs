//! Score FITS cutouts with a raw model: cargo run --release -- realbogus.onnx cutout.fits...
mod fits;

use std::{env, error::Error, fs, path::Path};

use ort::{inputs, session::Session, value::Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, files @ ..] = arguments.as_slice() else {
        return Err("usage: transientnet-example MODEL.onnx CUTOUT.fits...".into());
    };
    let mut session = Session::builder()?.commit_from_file(model)?;
    let classes = session.metadata()?.custom("transientnet_classes").ok_or("not a raw model of transientnet")?;
    let columns: Vec<String> = classes.lines().map(|name| format!("p_{name}")).collect();
    println!("id,{},quality", columns.join(","));
    for file in files {
        let stamps = fits::read(&fs::read(file)?).map_err(|reason| format!("{file}: {reason}"))?;
        let found = session.run(inputs![
            "stamps" => Tensor::from_array(([1, 3, stamps.height, stamps.width], stamps.pixels))?,
            "fwhm" => Tensor::from_array(([1], vec![stamps.fwhm]))?,
        ])?;
        let (_, probabilities) = found["probabilities"].try_extract_tensor::<f32>()?;
        let (_, quality) = found["quality"].try_extract_tensor::<i32>()?;
        let numbers: Vec<String> = probabilities
            .iter()
            .map(|p| if p.is_nan() { "nan".into() } else { format!("{p:.7}") })
            .collect();
        let id = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        println!("{id},{},{}", numbers.join(","), quality[0]);
    }
    Ok(())
}

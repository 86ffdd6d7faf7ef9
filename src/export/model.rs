//! A model as pictures and arrays.

use super::arrays::{self, NamedArray};
use super::mosaic;
use crate::error::Result;
use crate::files;
use crate::kernels::sparse::to_host;
use crate::model::Mlcsc;
use burn::tensor::Tensor;
use std::path::{Path, PathBuf};

/// Writes a model's filters into a folder and returns the files, in the order of the layers.
///
/// | file | content |
/// |---|---|
/// | `filters_1.png` | the filters of D_1 |
/// | `effective_2.png` … | the effective atoms of D^(2) … D^(L), in samples of the signal |
/// | `W_1.npy` … | the filters W_i, `[m_i, m_{i−1}, kernel height, kernel width]` |
/// | `effective_2.npy` … | the filters of D^(i), `[m_i, channels, kernel height, kernel width]` |
/// | `atoms.safetensors` | all these arrays under their names |
///
/// Those of a deeper model that were exported to the same folder earlier are removed.
///
/// # Errors
/// A folder that cannot be made or written into, a full disk.
pub fn export_model(model: &Mlcsc, folder: &Path) -> Result<Vec<PathBuf>> {
    files::create_folder(folder)?;
    let earlier = arrays::safetensors_names(&folder.join(ATOMS));
    let mut written = Vec::new();
    let mut all = Vec::new();
    let mut export = |name: String, picture: Option<String>, filters: Tensor<4>| -> Result<()> {
        if let Some(picture) = picture {
            let path = folder.join(picture);
            mosaic::save(&mosaic::filters(filters.clone(), None), &path)?;
            written.push(path);
        }
        let shape = filters.dims();
        let values = to_host(filters);
        let path = folder.join(format!("{name}.npy"));
        arrays::write_npy(&path, &shape, &values)?;
        written.push(path);
        all.push(NamedArray::floats(name, &shape, &values));
        Ok(())
    };
    for (index, filters) in model.filters().into_iter().enumerate() {
        let depth = index + 1;
        let picture = (depth == 1).then(|| "filters_1.png".into());
        export(format!("W_{depth}"), picture, filters)?;
        if depth > 1 {
            let picture = Some(format!("effective_{depth}.png"));
            export(format!("effective_{depth}"), picture, model.effective_filters(depth))?;
        }
    }
    let path = folder.join(ATOMS);
    arrays::write_safetensors(&path, None, all)?;
    written.push(path);
    // What the earlier export lists and this one did not write would be taken for this model's.
    for name in earlier.iter().filter(|name| is_ours(name)) {
        for path in ["npy", "png"].map(|ending| folder.join(format!("{name}.{ending}"))) {
            if !written.contains(&path) {
                // One that is not there need not be removed.
                let _ = std::fs::remove_file(path);
            }
        }
    }
    Ok(written)
}

/// Whether an array has a name that [`export_model`] gives.
fn is_ours(name: &str) -> bool {
    let parts = name.split_once('_');
    parts.is_some_and(|(kind, layer)| ["W", "effective"].contains(&kind) && layer.parse::<usize>().is_ok())
}

/// File of all arrays.
const ATOMS: &str = "atoms.safetensors";

/// Names of the files that [`export_model`] writes for a model of so many layers.
pub fn files_of(depth: usize) -> Vec<String> {
    let layer = |layer: usize| match layer {
        1 => vec!["filters_1.png".to_owned(), "W_1.npy".to_owned()],
        _ => vec![format!("W_{layer}.npy"), format!("effective_{layer}.png"), format!("effective_{layer}.npy")],
    };
    (1..=depth).flat_map(layer).chain([ATOMS.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{LayerShape, SignalShape};
    use crate::model::ModelConfig;
    use burn::tensor::Distribution;

    #[test]
    fn every_file_is_there() {
        let device = crate::device::named(None).unwrap();
        let config =
            ModelConfig::new(SignalShape::new(1, 9, 9), vec![LayerShape::new(3, 5, 2), LayerShape::new(4, 3, 1)]);
        let filters = vec![
            Tensor::random([3, 1, 5, 5], Distribution::Default, &device),
            Tensor::random([4, 3, 3, 3], Distribution::Default, &device),
        ];
        let model = Mlcsc::from_filters(config, filters).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let written = export_model(&model, &folder.path().join("new/folder")).unwrap();
        let names: Vec<_> = written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        let expected =
            ["filters_1.png", "W_1.npy", "W_2.npy", "effective_2.png", "effective_2.npy", "atoms.safetensors"];
        assert_eq!(names, expected);
        assert_eq!(files_of(2), expected);
        assert!(written.iter().all(|path| path.is_file()));
        let bytes = std::fs::read(&written[5]).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let effective = tensors.tensor("effective_2").unwrap();
        assert_eq!(effective.shape(), [4, 1, 9, 9]);
        let values: Vec<f32> = model.effective_filters(2).into_data().iter::<f32>().collect();
        assert_eq!(effective.data(), arrays::little_endian(&values));
        // A shallower model in the same folder leaves nothing of the deeper one, and what is not an export's alone.
        let folder = folder.path().join("new/folder");
        std::fs::write(folder.join("effective_3.png"), "somebody's").unwrap();
        let shallow = ModelConfig::new(SignalShape::new(1, 9, 9), vec![LayerShape::new(3, 5, 2)]);
        let shallow = Mlcsc::from_filters(shallow, vec![Tensor::ones([3, 1, 5, 5], &device)]).unwrap();
        export_model(&shallow, &folder).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["W_1.npy", "atoms.safetensors", "effective_3.png", "filters_1.png"]);
    }
}

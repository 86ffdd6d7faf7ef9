//! A model as pictures and arrays.

use super::arrays::{self, NamedArray};
use super::mosaic;
use crate::error::Result;
use crate::files;
use crate::model::Mlcsc;
use crate::model::sparse::to_host;
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
/// # Errors
/// A folder that cannot be made or written into, a full disk.
pub fn export_model(model: &Mlcsc, folder: &Path) -> Result<Vec<PathBuf>> {
    files::create_folder(folder)?;
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
    let path = folder.join("atoms.safetensors");
    arrays::write_safetensors(&path, None, all)?;
    written.push(path);
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelConfig;
    use crate::model::geometry::{LayerShape, SignalShape};
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
        assert!(written.iter().all(|path| path.is_file()));
        let bytes = std::fs::read(&written[5]).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let effective = tensors.tensor("effective_2").unwrap();
        assert_eq!(effective.shape(), [4, 1, 9, 9]);
        let values: Vec<f32> = model.effective_filters(2).into_data().iter::<f32>().collect();
        assert_eq!(effective.data(), arrays::little_endian(&values));
    }
}

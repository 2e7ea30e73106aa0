//! The operators of ONNX that are understood.

/// Their names. `shapes` knows the shape of each result, and `lower` how it is computed, unless it is only arithmetic
/// of constants, which `fold` does.
pub const NAMES: [&str; 100] = [
    "Abs",
    "Add",
    "And",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Einsum",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "IsNaN",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "Range",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "Round",
    "ScatterND",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sign",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Upsample",
    "Where",
];

/// Those that are arithmetic of constants alone, or that exporters guard other functions by.
pub const OF_CONSTANTS: [&str; 25] = [
    "And",
    "Ceil",
    "Constant",
    "ConstantOfShape",
    "Einsum",
    "Equal",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "Mod",
    "Not",
    "Or",
    "Range",
    "ReduceProd",
    "Round",
    "ScatterND",
    "Shape",
    "Sign",
    "Size",
    "Tile",
    "Trilu",
    "Where",
];

/// The names for a message: of images, and of constants.
pub fn listed() -> String {
    let (constants, images): (Vec<&str>, Vec<&str>) = NAMES.into_iter().partition(|name| OF_CONSTANTS.contains(name));
    format!("{}; of constants alone {}", images.join(", "), constants.join(", "))
}

pub fn is_known(op: &str) -> bool {
    NAMES.contains(&op)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_once() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
    }

    #[test]
    fn what_is_only_of_constants_is_known_and_lowered_nowhere() {
        assert!(OF_CONSTANTS.iter().all(|name| is_known(name)));
        let lowered = include_str!("lower/mod.rs");
        assert!(OF_CONSTANTS.iter().all(|name| !lowered.contains(&format!("\"{name}\" =>"))));
    }
}

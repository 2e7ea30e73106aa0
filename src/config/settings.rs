//! The choices that a config offers, by the names it gives them.

use crate::choice::choice;

choice! {
    /// Which flag of an image counts as "correct" in `results.csv`.
    Score {
        /// The last iterate is classified correctly.
        Last = "last",
        /// Every iterate of every restart is classified correctly.
        Any = "any",
    }
}

choice! {
    /// Which images a limit keeps.
    SelectBy {
        /// The first of the source.
        First = "first",
        /// As many of each class as of any other.
        Balanced = "balanced",
        /// Drawn by `seed` of the dataset, as NumPy's shuffle would.
        Random = "random",
    }
}

choice! {
    /// How a radius becomes the three digits of the published table.
    Rounding {
        /// Down, so that no image is certified for more than was proved.
        Down = "down",
        /// To the nearest, as the published code does.
        Nearest = "nearest",
    }
}

choice! {
    /// What is done with the draws; both are Cohen's (2019).
    Procedure {
        /// A class and a radius within which no perturbation changes it.
        Certify = "certify",
        /// A class alone, unless the second is as likely.
        Predict = "predict",
    }
}

//! Looking into a network: catches the outputs of modules on their way through.

use crate::Result;
use crate::tensor::Tensor;

/// The modules that are asked for, and those that were found.
#[derive(Default)]
pub struct Probe {
    wanted: Vec<String>,
    found: Vec<Option<Tensor>>,
    /// all that were seen, for messages
    names: Vec<String>,
}

impl Probe {
    /// Asks for one module.
    pub fn new(module: &str) -> Self {
        Self::several(&[module.to_owned()])
    }

    /// Asks for several modules.
    pub fn several(modules: &[String]) -> Self {
        Probe { wanted: modules.to_vec(), found: vec![None; modules.len()], names: Vec::new() }
    }

    /// The output of the first module that was asked for.
    ///
    /// # Errors
    /// As [`Probe::all`].
    pub fn found(self) -> Result<Tensor, Vec<String>> {
        let names = self.names.clone();
        self.all().map_err(|(_, names)| names)?.into_iter().next().ok_or(names)
    }

    /// The outputs of all modules that were asked for, in that order.
    ///
    /// # Errors
    /// The first module that was not seen, and the names of those that were.
    pub fn all(self) -> Result<Vec<Tensor>, (String, Vec<String>)> {
        let missing = self.found.iter().position(Option::is_none);
        match missing {
            Some(i) => Err((self.wanted[i].clone(), self.names)),
            None => Ok(self.found.into_iter().flatten().collect()),
        }
    }

    /// Whether anything is asked for.
    pub fn active(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Shows the output of a module.
    pub fn see(&mut self, name: &str, t: &Tensor) {
        if !self.active() {
            return;
        }
        self.names.push(name.into());
        for (wanted, found) in self.wanted.iter().zip(&mut self.found) {
            if wanted == name {
                *found = Some(t.clone());
            }
        }
    }

    /// The same of an output that has to be computed.
    ///
    /// # Errors
    /// What `compute` returns.
    pub fn offer(&mut self, name: &str, compute: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if self.wanted.iter().any(|wanted| wanted == name) {
            self.see(name, &compute()?);
        } else if self.active() {
            self.names.push(name.into());
        }
        Ok(())
    }
}

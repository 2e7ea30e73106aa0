//! Looking into a network: catches the outputs of modules on their way through.

use crate::Result;
use crate::tensor::Tensor;

/// Gets the name and output of a module.
type See<'a> = Box<dyn FnMut(&str, &Tensor) + 'a>;

/// Catches the outputs of modules that are asked for, or shows all of them.
#[derive(Default)]
pub struct Probe<'a> {
    wanted: Vec<String>,
    found: Vec<Option<Tensor>>,
    /// all that were seen, for messages
    names: Vec<String>,
    every: Option<See<'a>>,
}

impl<'a> Probe<'a> {
    /// Asks for one module.
    pub fn new(module: &str) -> Self {
        Self::several(&[module.to_owned()])
    }

    /// Asks for several modules.
    pub fn several(modules: &[String]) -> Self {
        Probe { wanted: modules.to_vec(), found: vec![None; modules.len()], ..Self::default() }
    }

    /// Calls `see` with the name and output of every module that a network computes anyway.
    pub fn every(see: impl FnMut(&str, &Tensor) + 'a) -> Self {
        Probe { every: Some(Box::new(see)), ..Self::default() }
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
        self.every.is_some() || !self.wanted.is_empty()
    }

    /// Whether this module is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted == name)
    }

    /// Shows the output of a module.
    pub fn see(&mut self, name: &str, t: &Tensor) {
        if !self.active() {
            return;
        }
        if let Some(see) = &mut self.every {
            see(name, t);
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
        if self.wants(name) {
            self.see(name, &compute()?);
        } else if self.active() {
            self.names.push(name.into());
        }
        Ok(())
    }
}

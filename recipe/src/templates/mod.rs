//! Chat templates that tools have by name, written anew from the facts of their formats: what
//! stands before and behind the text of a turn. What comes out is Jinja, which the data sets read
//! as they read a model's own template.

mod axolotl;
mod factory;
mod format;

use format::TurnFormat;

pub(crate) use factory::FactoryTemplate;

/// Names of the templates that a job file may give instead of a text: those of Axolotl.
pub const TEMPLATE_NAMES: [&str; 14] = axolotl::NAMES;

/// The text (Jinja) of a template by its name in Axolotl; `None` where the name is not known.
pub fn named_template(name: &str) -> Option<String> {
    axolotl::template(name)
}

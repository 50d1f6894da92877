//! One reader for each tool. It asks for the keys that its table marks as read, and puts Concord's
//! in their place.

mod axolotl;
mod axolotl_data;
mod axolotl_types;
mod common;
mod evaluation;
mod factory_data;
mod llama_factory;
mod torchtune;
mod trainer;
mod trl;
mod trl_data;
mod unsloth;

use crate::Files;
use crate::builder::JobBuilder;
use crate::tool::Tool;

/// Reads the keys of the builder's tool.
pub(crate) fn tool(builder: &mut JobBuilder, files: Files) {
    match builder.out.tool {
        Tool::Concord => {}
        Tool::Axolotl => axolotl::read(builder),
        Tool::Trl => trl::read(builder),
        Tool::LlamaFactory => llama_factory::read(builder, files),
        Tool::Torchtune => torchtune::read(builder),
        Tool::Unsloth => unsloth::read(builder),
    }
}

//! The command lines of `capstan inject` and `capstan uninject`.

use std::path::PathBuf;

use clap::Args;

/// Write manifests with the sidecar in the workloads that Consumers name
///
/// The operator gives workloads their sidecar by itself. This is for those who want everything that runs to stand in Git:
/// the operator finds such a sidecar and leaves it alone. Prints all objects of the files, those that change anew, without
/// their comments, the others as they are. Run it again after an upgrade of Capstan.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capstan inject -f shop.yaml --namespace shop | kubectl apply -f -
  kustomize build . | capstan inject -f - > all.yaml
  capstan inject -f deployment.yaml --with queues/ --sidecar-image registry.example.com/capstan/sidecar:0.1.0")]
pub(crate) struct InjectArgs {
    /// YAML files of the workloads, or folders of them; `-` is standard input. Queues and Consumers may be among them.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// More files with Queues and Consumers, which are not printed.
    #[arg(long, value_name = "FILE")]
    pub(crate) with: Vec<PathBuf>,
    /// Namespace of objects that name none.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Broker of Queues that are not in the files.
    #[arg(long, value_name = "NAME")]
    pub(crate) broker: Option<String>,
    /// Image of the sidecar.
    #[arg(long, value_name = "IMAGE", default_value = concat!("capstan/sidecar:", env!("CARGO_PKG_VERSION")))]
    pub(crate) sidecar_image: String,
    /// When nodes pull it: Always, IfNotPresent or Never.
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub(crate) pull_policy: String,
}

/// Write manifests without the sidecar
///
/// Takes out what `capstan inject` put in: the init container, the hooks that call it, and the annotation.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  capstan uninject -f all.yaml | kubectl apply -f -")]
pub(crate) struct UninjectArgs {
    /// YAML files, or folders of them; `-` is standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt fine-tune`: a run that trains a model further on conversations, in this process or in the queue of the store.</summary>
internal sealed class FineTuneVerb() : TrainingVerb("fine-tune", RunKind.Finetune,
    "Train a model further on conversations. Ctrl+C saves and ends with exit code 3; --resume goes on bit for bit.",
    "--base_checkpoint_path DIR --dataset_subsets A,B");

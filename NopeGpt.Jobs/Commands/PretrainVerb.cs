namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt pretrain`: a pretraining run in this process, or in the queue of the store.</summary>
internal sealed class PretrainVerb() : TrainingVerb("pretrain", RunKind.Pretrain,
    "Train a model from its initialisation. Ctrl+C saves and ends with exit code 3; --resume goes on bit for bit.", "--dataset NAME_OR_TOKEN_FILE");

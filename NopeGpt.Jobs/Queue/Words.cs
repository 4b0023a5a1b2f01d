namespace NopeGpt.Jobs.Queue;

/// <summary>The words of reasons.</summary>
internal static class Words
{
    /// <summary>A state as the end of a sentence whose subject is a run.</summary>
    public static string Of(RunState state) => state switch
    {
        RunState.Queued => "waits in the queue",
        RunState.Starting => "is being started",
        RunState.Running => "is running",
        RunState.Stopping => "is stopping",
        RunState.Interrupted => "is interrupted",
        RunState.Completed => "is completed",
        RunState.Failed => "has failed",
        _ => "was cancelled",
    };

    public static string Of(RunKind kind) => kind switch
    {
        RunKind.Prepare => "prepare",
        RunKind.Pretrain => "pretrain",
        RunKind.Tokenizer => "tokenizer",
        RunKind.Finetune => "fine-tune",
        RunKind.Export => "export",
        _ => "evaluate",
    };

    /// <summary>For example "My model (pretrain, 43 %)".</summary>
    public static string Progress(RunRow row) =>
        row.State is RunState.Running or RunState.Stopping && row.MaxSteps > 0
            ? $"{row.Title} ({Of(row.Kind)}, {100 * row.Step / row.MaxSteps} %)"
            : $"{row.Title} ({Of(row.Kind)})";
}

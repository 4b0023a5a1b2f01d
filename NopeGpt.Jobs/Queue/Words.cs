using System.Globalization;

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

    /// <summary>a, b and c.</summary>
    public static string List(IEnumerable<string> words) => words.ToArray() is { Length: > 1 } several ? $"{string.Join(", ", several[..^1])} and {several[^1]}" : words.FirstOrDefault() ?? "";

    /// <summary>For example "3.1 GB".</summary>
    public static string Gigabytes(long bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e9:0.0} GB");

    /// <summary>For example "3.1 of 9.4 GB", with as many digits as tell the two apart.</summary>
    public static string Gigabytes(long part, long whole)
    {
        for (int digits = 1; ; digits++)
        {
            string format = "0." + new string('0', digits), first = (part / 1e9).ToString(format, CultureInfo.InvariantCulture), second = (whole / 1e9).ToString(format, CultureInfo.InvariantCulture);
            if (first != second || digits == 9) return $"{first} of {second} GB";
        }
    }
}

using System.Text.Json;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

/// <summary>A setting and the values that a sweep gives it, as somebody wrote them.</summary>
/// <param name="Name">The setting: its path (optimizer.learning_rate), its name, or the reference's.</param>
/// <param name="Text">Values and ranges: see <see cref="Forms"/>; null where <paramref name="Values"/> has them.</param>
/// <param name="Values">A JSON array of values, or a text of the other form.</param>
public sealed record SweepAxis(string Name, string? Text, JsonElement? Values = null)
{
    /// <summary>How values are written, in words.</summary>
    public const string Forms = "V1,V2,... for values; A..B for whole numbers one by one; A..B*N for N numbers that grow by the same factor; A..B+N for N numbers at the same distance; or a JSON array, where values are lists or have commas";

    /// <summary>What is wrong with axes for a config.</summary>
    public static IReadOnlyList<Problem> Problems(RunConfig config, IReadOnlyList<SweepAxis> axes)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(axes);
        List<Problem> problems = [];
        _ = Sweep.Read(config, axes, problems);
        return problems;
    }

    /// <summary>NAME=VALUES, as on the command line.</summary>
    public static SweepAxis Parse(string words)
    {
        ArgumentNullException.ThrowIfNull(words);
        int equals = words.IndexOf('=', StringComparison.Ordinal);
        return equals < 0 ? new(words, null) : new(words[..equals].Trim().TrimStart('-'), words[(equals + 1)..].Trim());
    }
}

using System.Globalization;
using NopeGpt.Data.Chat;

namespace NopeGpt.Web.Components.Parts.Datasets;

/// <summary>How the batches are made that the preview shows: a training run's options. The page's address carries those that are not the default.</summary>
public sealed record LossOptions
{
    /// <summary>Rows of more tokens are of no use to look at.</summary>
    public const int LongestSample = 16_384;

    public int TokensPerSample { get; init; } = 256;

    public int BatchSize { get; init; } = 8;

    public int NumEvalSamples { get; init; } = 64;

    public ulong Seed { get; init; } = 1337;

    /// <summary>Null for the usual: text packed, conversations not.</summary>
    public bool? Packed { get; init; }

    public ChatLabels Labels { get; init; } = ChatLabels.Reply;

    /// <summary>Whether padding is shown.</summary>
    public bool Padding { get; init; }

    /// <summary>Reads the parts of an address; what is not sound there has its default.</summary>
    public static LossOptions Read(Func<string, string?> value)
    {
        ArgumentNullException.ThrowIfNull(value);
        LossOptions usual = new();
        return new LossOptions
        {
            TokensPerSample = Number(value("tokens_per_sample"), 2, LongestSample) ?? usual.TokensPerSample,
            BatchSize = Number(value("batch_size"), 1, 1024) ?? usual.BatchSize,
            NumEvalSamples = Number(value("num_eval_samples"), 0, 1_000_000) ?? usual.NumEvalSamples,
            Seed = ulong.TryParse(value("seed"), CultureInfo.InvariantCulture, out ulong seed) ? seed : usual.Seed,
            Packed = bool.TryParse(value("packed"), out bool packed) ? packed : null,
            Labels = value("labels") switch { "everything" => ChatLabels.Everything, "reply_without_header" => ChatLabels.ReplyWithoutHeader, _ => ChatLabels.Reply },
            Padding = bool.TryParse(value("padding"), out bool padding) && padding,
        };
    }

    private static int? Number(string? text, int least, int most) => int.TryParse(text, CultureInfo.InvariantCulture, out int value) ? Math.Clamp(value, least, most) : null;
}

using System.Globalization;
using System.Text.Json.Serialization;

namespace NopeGpt.Model;

/// <summary>How the next token is chosen from the model's logits. See <see cref="Sampler"/> for the order in which the settings act.</summary>
public sealed record SamplingOptions
{
    /// <summary>Divides the logits: below 1 is safer, above 1 is wilder, 0 always takes the likeliest token.</summary>
    [JsonPropertyName("temperature")]
    public double Temperature { get; init; } = 0.9;

    /// <summary>Only this many of the likeliest tokens are kept. 0 keeps all.</summary>
    [JsonPropertyName("top_k")]
    public int TopK { get; init; } = 500;

    /// <summary>The likeliest tokens are kept until their probabilities reach this sum; the one that crosses it is kept. 1 keeps all.</summary>
    [JsonPropertyName("top_p")]
    public double TopP { get; init; } = 0.9;

    /// <summary>Only tokens are kept whose probability is at least this share of the likeliest one's. 0 is off.</summary>
    [JsonPropertyName("min_p")]
    public double MinP { get; init; }

    /// <summary>For each time a token was generated in the window its logit l falls by this share of |l|. 0 is off.</summary>
    [JsonPropertyName("repeat_penalty")]
    public double RepeatPenalty { get; init; } = 0.1;

    /// <summary>How many of the last generated tokens the penalty looks at. The prompt does not count.</summary>
    [JsonPropertyName("repeat_window")]
    public int RepeatWindow { get; init; } = 50;

    /// <summary>The same seed gives the same text. Null: a new one each time.</summary>
    [JsonPropertyName("seed")]
    public ulong? Seed { get; init; }

    /// <summary>Everything that is wrong with the settings.</summary>
    public IEnumerable<Problem> Problems()
    {
        if (!(Temperature is >= 0 and <= 100)) yield return Wrong("temperature", Temperature, "a number from 0 (always the likeliest token) to 100");
        if (TopK < 0) yield return Wrong("top_k", TopK, "a whole number of 1 or more, or 0 to keep all tokens");
        if (!(TopP is > 0 and <= 1)) yield return Wrong("top_p", TopP, "a number above 0 and up to 1 (1 keeps all tokens)");
        if (!(MinP is >= 0 and <= 1)) yield return Wrong("min_p", MinP, "a number from 0 (off) to 1 (only tokens as likely as the likeliest)");
        if (!(RepeatPenalty is >= 0 and <= 1)) yield return Wrong("repeat_penalty", RepeatPenalty, "a number from 0 (off) to 1");
        if (RepeatWindow < 0) yield return Wrong("repeat_window", RepeatWindow, "a whole number of 0 or more");

        static Problem Wrong(string field, IFormattable value, string cure) =>
            new(field, value.ToString(null, CultureInfo.InvariantCulture), $"is out of range: choose {cure}");
    }
}

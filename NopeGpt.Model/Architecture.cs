using System.Text.Json.Serialization;

namespace NopeGpt.Model;

/// <summary>How a token's place in the text reaches the network.</summary>
[JsonConverter(typeof(SnakeCaseEnumConverter<Positions>))]
public enum Positions
{
    /// <summary>Only through the causal mask (Kazemnejad et al. 2023).</summary>
    None,

    /// <summary>Queries and keys are rotated, adjacent channels being a pair (Su et al. 2021).</summary>
    Rope,

    /// <summary>A trained vector for each place is added to the embedding (GPT-2).</summary>
    Learned,
}

/// <summary>How the stream is normalised before a branch.</summary>
[JsonConverter(typeof(SnakeCaseEnumConverter<Norm>))]
public enum Norm
{
    /// <summary>x / sqrt(mean(x²) + eps) · w (Zhang and Sennrich 2019).</summary>
    RmsNorm,

    /// <summary>(x - mean) / sqrt(variance + eps) · w + b (Ba et al. 2016).</summary>
    LayerNorm,
}

/// <summary>The form of the MLP.</summary>
[JsonConverter(typeof(SnakeCaseEnumConverter<Mlp>))]
public enum Mlp
{
    /// <summary>linear2(silu(linear1(x))).</summary>
    Silu,

    /// <summary>linear2(silu(linear1(x)) · linear3(x)) (Shazeer 2020).</summary>
    Swiglu,

    /// <summary>linear2(gelu(linear1(x))), GELU in its tanh form (Hendrycks and Gimpel 2016).</summary>
    Gelu,
}

/// <summary>How the parameters of a new model are drawn; the table is at <see cref="Decoder"/>.</summary>
[JsonConverter(typeof(SnakeCaseEnumConverter<Initialization>))]
public enum Initialization
{
    /// <summary>Ours: the first loss is near ln V, whatever the architecture.</summary>
    Default,

    /// <summary>PyTorch's defaults, as the reference leaves them.</summary>
    NopeGpt,

    LightGpt,

    LilLm,

    Gpt2,
}

internal sealed class SnakeCaseEnumConverter<T>() : JsonStringEnumConverter<T>(System.Text.Json.JsonNamingPolicy.SnakeCaseLower, allowIntegerValues: false)
    where T : struct, Enum;

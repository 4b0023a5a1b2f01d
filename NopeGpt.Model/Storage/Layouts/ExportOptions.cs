using static TorchSharp.torch;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>How <see cref="HubLayout.Export"/> writes.</summary>
public sealed record ExportOptions
{
    /// <summary>Type of the written weights: float32, bfloat16 or float16.</summary>
    public ScalarType Type { get; init; } = ScalarType.Float32;

    /// <summary>Most bytes of tensors in one file; more go to shards with an index. Null: one file.</summary>
    public long? MaxShardBytes { get; init; }

    /// <summary>The token that ends a text, for the eos_token_id of Hugging Face. Null: none is named.</summary>
    public int? EndOfTextId { get; init; }

    /// <summary>The token that begins a text, for its bos_token_id. Null: none is named.</summary>
    public int? BeginningId { get; init; }

    /// <summary>Writes more files, such as a tokenizer.json, into the folder that it is given, before that appears under its name.</summary>
    public Action<string>? AddFiles { get; init; }
}

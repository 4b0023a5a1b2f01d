namespace NopeGpt.Jobs.Tokenizers;

/// <summary>Where a tokenizer of the store comes from: info.json beside its tokenizer.json. One without it came with a data set.</summary>
public sealed record TokenizerInfo
{
    public required DateTimeOffset Made { get; init; }

    /// <summary>How it was trained; null for one that was imported.</summary>
    public TokenizerConfig? Recipe { get; init; }

    /// <summary>The run that trained it.</summary>
    public string? RunId { get; init; }

    /// <summary>What identified the text that it was trained on.</summary>
    public string? SourceFingerprint { get; init; }

    /// <summary>The documents that it was trained on.</summary>
    public long Documents { get; init; }

    /// <summary>Their UTF-8 bytes.</summary>
    public long TextBytes { get; init; }

    /// <summary>On a sample of them.</summary>
    public double BytesPerToken { get; init; }

    /// <summary>The file or folder that it was imported from; null for one that was trained.</summary>
    public string? ImportedFrom { get; init; }
}

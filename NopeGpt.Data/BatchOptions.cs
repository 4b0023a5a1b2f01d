namespace NopeGpt.Data;

/// <summary>How tokens become batches.</summary>
public sealed record BatchOptions
{
    /// <summary>Rows in a batch of one rank.</summary>
    public int BatchSize { get; init; } = 1;

    /// <summary>Tokens in a row.</summary>
    public int TokensPerSample { get; init; } = 256;

    /// <summary>For holdout and order.</summary>
    public ulong Seed { get; init; }

    /// <summary>Windows of each file that are never trained on. The holdout has so many in all, of each file its share by weight.</summary>
    public int HoldoutSamples { get; init; }

    /// <summary>Which share of the batches this is, 0 to <see cref="Ranks"/> - 1.</summary>
    public int Rank { get; init; }

    /// <summary>Into how many shares the batches are divided.</summary>
    public int Ranks { get; init; } = 1;

    /// <summary>Whether windows run on from document to document. Otherwise each is of one document: a longer document has several, and what is
    /// left of a row is filled.</summary>
    public bool Packed { get; init; } = true;

    /// <summary>The id that fills rows that are not packed. Nothing is predicted there.</summary>
    public int PaddingId { get; init; }
}

/// <summary>A token file in a mixture.</summary>
/// <param name="File">its tokens</param>
/// <param name="Weight">its share of the samples, in proportion to the other weights; more than 0</param>
public sealed record MixedFile(TokenFile File, double Weight = 1);

/// <summary>Where training stands in its data. This and the options are all that has to be kept to go on: batches are a function of them. It counts
/// samples, so that training can go on with another batch size or another number of ranks.</summary>
/// <param name="Samples">samples handed out to all ranks together</param>
public readonly record struct BatchPosition(long Samples);

namespace NopeGpt.Jobs.Inference;

/// <summary>Why a model cannot answer.</summary>
internal enum ModelFailure
{
    /// <summary>No checkpoint has that name.</summary>
    Unknown,

    /// <summary>It is there, and damaged or not fit for this program.</summary>
    Unusable,

    /// <summary>It is whole, but for a file that lies elsewhere and can still be put there.</summary>
    FileMissing,

    /// <summary>There is no room for it now.</summary>
    NoRoom,
}

/// <summary>A model cannot answer; the message is a sentence for the person who asked.</summary>
internal sealed class ModelException(ModelFailure failure, string message) : Exception(message)
{
    public ModelFailure Failure { get; } = failure;
}

using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference;

namespace NopeGpt.Jobs.Training;

/// <summary>What a training run learns from: where its batches come from is all that the loop's kinds differ in, beside what of the model trains.</summary>
internal interface ITrainingSet : IDisposable
{
    /// <summary>That made the ids, with chat markers where they were made with them.</summary>
    Tokenizer Tokenizer { get; }

    /// <summary>Of the tokenizer, as the files have it.</summary>
    string TokenizerHash { get; }

    /// <summary>The tokenizer.json that lies with the files, for checkpoints.</summary>
    string TokenizerFile { get; }

    /// <summary>As the config names them.</summary>
    string Name { get; }

    /// <summary>In one line, for the log.</summary>
    string Description { get; }

    /// <summary>Samples that are trained on once in every epoch.</summary>
    long TrainingSamples { get; }

    /// <summary>Tokens of a sample, on average: by them operations are counted.</summary>
    int UsualLength { get; }

    /// <summary>Tokens that a model which has learned this can look back on.</summary>
    int ContextLength { get; }

    /// <summary>Reads files of usual sizes through.</summary>
    /// <exception cref="InvalidDataException">One is damaged.</exception>
    void Verify();

    /// <summary>The batch of training whose first sample is this one of those that were ever trained on; a pure function of it.</summary>
    /// <param name="reuse">A batch whose arrays may be used again.</param>
    Batch Training(long samples, Batch? reuse);

    /// <summary>What never trains, the same in the same order each time.</summary>
    IEnumerable<Batch> Holdout();

    /// <summary>Of the documents that a batch's samples begin in, or of its conversations.</summary>
    IEnumerable<long> Documents(Batch batch);

    /// <summary>Tokens of a batch that are trained on, those that only fill its rows left out.</summary>
    long Tokens(Batch batch);

    /// <summary>What the model reads before it goes on with a text, or replies to it.</summary>
    PromptTokens Prompt(string text);
}

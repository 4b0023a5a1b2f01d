using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference;

namespace NopeGpt.Jobs.Training;

/// <summary>Documents to pretrain on: windows over token files.</summary>
internal sealed class TextSet : ITrainingSet
{
    private readonly RunConfig _config;
    private readonly TrainingData _files;
    private readonly BatchSource _batches;

    /// <inheritdoc cref="TrainingData(DataConfig, Store)"/>
    public TextSet(RunConfig config, Store store)
    {
        _config = config;
        _files = new(config.Data, store);
        try { _batches = _files.Source(config.Data, config.Training.BatchSize, config.Seed); }
        catch
        {
            _files.Dispose();
            throw;
        }
    }

    public Tokenizer Tokenizer => _files.Tokenizer;
    public string TokenizerHash => _files.First.TokenizerHash;
    public string TokenizerFile => Store.TokenizerBeside(_files.First.Path);
    public string Name => _config.Data.Dataset;
    public string Description => $"{_files.Tokens:N0} tokens, {TrainingSamples:N0} training samples, {_batches.HoldoutWindows} held out";
    public long TrainingSamples => _batches.TrainingWindows;
    public int UsualLength => _config.Data.TokensPerSample;
    public int ContextLength => _config.Data.TokensPerSample;

    public void Verify() => _files.Verify();

    public Batch Training(long samples, Batch? reuse) => _batches.Training(new BatchPosition(samples), reuse);

    public IEnumerable<Batch> Holdout() => _batches.Holdout();

    public IEnumerable<long> Documents(Batch batch) => _batches.DocumentIds(batch);

    public long Tokens(Batch batch) => (long)batch.Rows * batch.Length;

    // Every document of the corpus begins after an end-of-text, or with BOS.
    public PromptTokens Prompt(string text) => Samples.Prompt(Tokenizer, text);

    public void Dispose() => _files.Dispose();
}

using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference;

namespace NopeGpt.Jobs.Training;

/// <summary>Conversations to fine-tune on: the chat files that a config names, and the tokenizer that made them.</summary>
internal sealed class ChatSet : ITrainingSet
{
    private readonly RunConfig _config;
    private readonly List<ChatFile> _files = [];
    private readonly ChatBatchSource _batches;
    private readonly ChatFormat _format;

    /// <exception cref="FileNotFoundException">A file or tokenizer is missing.</exception>
    /// <exception cref="InvalidDataException">One is damaged, holds no conversations, or they do not belong together.</exception>
    /// <exception cref="ArgumentException">Nothing is left to train on, or to hold out; the message says why.</exception>
    public ChatSet(RunConfig config, Store store)
    {
        _config = config;
        try
        {
            foreach (string name in config.Finetune.Datasets) _files.Add(ChatFile.Open(store.ResolveTokenFile(name)));
            Tokenizer = Tokenizer.Load(TokenizerFile, store.TokenizerPlaces, store.TokenizerDownload);
            foreach (ChatFile file in _files) Tokenizer = file.Tokens.CheckTokenizer(Tokenizer, TokenizerFile);
            _format = ChatFormat.For(Tokenizer);
            _batches = new(_files, _format.PaddingId, new ChatBatchOptions
            {
                BatchSize = config.Training.BatchSize, Sample = config.Finetune.Samples(), Packing = config.Finetune.Packing, Seed = config.Seed, HoldoutSamples = config.Data.NumEvalSamples,
            });
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public Tokenizer Tokenizer { get; }
    public string TokenizerHash => _files[0].Tokens.TokenizerHash;
    public string TokenizerFile => Store.TokenizerBeside(_files[0].Path);
    public string Name => string.Join(", ", _config.Finetune.Datasets);
    public string Description => $"{Statistics.Kept:N0} of {Statistics.Read:N0} conversations ({Words()}), {Statistics.Tokens:N0} tokens, {Statistics.LabelledTokens:N0} of them learned, {Rows}{_batches.HoldoutSamples} held out";
    public long TrainingSamples => _batches.TrainingRows;
    public int UsualLength => (int)Math.Max(1, Statistics.Tokens / Math.Max(1, Statistics.Kept));
    public int ContextLength => _batches.LongestSample;

    /// <summary>What became of the conversations.</summary>
    public ChatStatistics Statistics => _batches.Statistics;

    private string Rows => _batches.FillRate is { } full ? $"{TrainingSamples:N0} packed rows ({full:P1} full), " : $"{TrainingSamples:N0} training samples, ";

    public void Verify()
    {
        foreach (ChatFile file in _files)
        {
            if (file.Tokens.Count <= TrainingData.VerifiedTokens) file.Verify();
            else file.VerifyMessages();
        }
    }

    public Batch Training(long samples, Batch? reuse) => _batches.Training(samples / _config.Training.BatchSize);

    public IEnumerable<Batch> Holdout() => _batches.Holdout();

    public IEnumerable<long> Documents(Batch batch) => batch.Documents!.SelectMany(row => row);

    public long Tokens(Batch batch) => batch.Sequences!.LongLength - batch.Sequences.AsSpan().Count(Batch.Padding);

    public PromptTokens Prompt(string text) => PromptTokens.Create(Tokenizer, [new ChatTurn(ChatRole.User, text)], Math.Max(ContextLength, _config.Finetune.MaxTokensPerSample));

    public void Dispose()
    {
        foreach (ChatFile file in _files) file.Dispose();
    }

    private string Words()
    {
        string[] parts = [.. Statistics.Dropped.Select(d => $"{d.Value:N0} left out: {Configuration.Settings.SnakeCase(d.Key.ToString()).Replace('_', ' ')}"), .. Statistics.Truncated > 0 ? [$"{Statistics.Truncated:N0} cut"] : (string[])[]];
        return parts.Length == 0 ? "none left out or cut" : string.Join(", ", parts);
    }
}

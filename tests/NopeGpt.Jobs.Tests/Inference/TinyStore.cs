using System.Text.Json.Nodes;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;

namespace NopeGpt.Jobs.Tests.Inference;

/// <summary>A store with checkpoints of tiny untrained models, whose texts are gibberish but the same for the same seed.</summary>
public sealed class TinyStore : IDisposable
{
    public const string Run = "20260101-000000-aaaa", Empty = "20260101-000000-eeee";
    public const int TrainedContext = 48;

    private readonly TemporaryFolder _folder = new();

    public TinyStore()
    {
        TorchRuntime.Load();
        Store = new Store(_folder["root"]);
        TokenizerFile = TinyTokenizer.Write(_folder["tokenizer"]);
        Add(Run, 1);
        Add(Run, 2);
        RunFolder.Create(Store, new RunRecord(RunRecord.CurrentFormat, Empty, DateTimeOffset.UnixEpoch, [], new RunConfig()));
    }

    internal Store Store { get; }

    internal string TokenizerFile { get; }

    internal string this[string relative] => _folder[relative];

    internal string Folder(string run, long step) => Path.Combine(Store.RunFolder(run), "checkpoints", Checkpoint.FolderName(step));

    /// <summary>Writes a checkpoint whose parameters depend on the step.</summary>
    internal string Add(string run, long step, Action<Decoder>? change = null)
    {
        Tokenizer tokenizer = Tokenizer.Load(TokenizerFile);
        ModelConfig config = new() { VocabularySize = tokenizer.VocabularySize, EmbeddingDimensions = 16, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2 };
        using DisposeScope scope = torch.NewDisposeScope();
        using Decoder model = new(config, (ulong)step);
        change?.Invoke(model);
        using AdamW optimizer = new(model.Parameters(), new AdamWOptions());
        Checkpoint.Save(Folder(run, step), model, optimizer, TokenizerFile, new JsonObject { ["tokens_per_sample"] = TrainedContext });
        return Folder(run, step);
    }

    /// <summary>A model that has diverged: its output is not a number.</summary>
    internal static void Diverge(Decoder model)
    {
        using IDisposable quiet = torch.no_grad();
        foreach ((_, torch.Tensor parameter) in model.Parameters()) parameter.fill_(float.NaN);
    }

    public void Dispose() => _folder.Dispose();
}

using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Data.Tokenization;
using NopeGpt.Model;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Inference;

/// <summary>A checkpoint in memory, ready to write text.</summary>
internal sealed class LoadedModel : IDisposable
{
    /// <summary>Where a checkpoint does not say what it was trained with.</summary>
    public const int UsualContext = 1024;

    private const string Config = "config.json", Weights = "model.safetensors";

    private readonly Adapter? _adapter;

    private LoadedModel(string folder, Decoder decoder, Adapter? adapter, Tokenizer tokenizer, int trainedContext, int threads) =>
        (Folder, Decoder, _adapter, Tokenizer, TrainedContext, Threads) = (folder, decoder, adapter, tokenizer, trainedContext, threads);

    public string Folder { get; }
    public Decoder Decoder { get; }
    public Tokenizer Tokenizer { get; }

    /// <summary>Tokens of one sample in training.</summary>
    public int TrainedContext { get; }

    /// <summary>Tokens that the model sees at once where so many are asked for: learned positions go no further than their table.</summary>
    /// <param name="asked">Null: as in training.</param>
    public int Context(int? asked) =>
        Decoder.Config.Positions == Positions.Learned ? Math.Min(asked ?? TrainedContext, Decoder.Config.ContextLength) : asked ?? TrainedContext;

    /// <summary>CPU threads for one operator of it.</summary>
    public int Threads { get; }

    /// <returns>The folder, or the file of a model with its tokenizer beside it; they are not looked into.</returns>
    /// <exception cref="ModelException">One is missing.</exception>
    public static string Complete(string path)
    {
        if (File.Exists(path)) return path;
        if (!Directory.Exists(path)) throw new ModelException(ModelFailure.Unknown, $"the checkpoint {path} does not exist");
        bool tokenizer = Tokenizer.FileIn(path) is not null;
        // Other programs name the files of the weights otherwise, or have several; whether they are whole shows when they are loaded.
        bool binary = Directory.EnumerateFiles(path, "*.bin").Any();
        if (!binary && !Directory.EnumerateFiles(path, "*.safetensors").Any())
        {
            string[] missing = [.. ((string?[])[File.Exists(Path.Combine(path, Config)) ? null : Config, Weights, tokenizer ? null : Tokenizer.FileName]).OfType<string>()];
            throw new ModelException(ModelFailure.Unusable, $"{path} is not a checkpoint: it has no {string.Join(" and no ", missing)}");
        }
        // llama2.c names its tokenizer otherwise: that one is looked for when the model is known.
        return tokenizer || binary ? path : throw new ModelException(ModelFailure.Unusable, $"{path} has no {Tokenizer.FileName}: {Tokenizer.MissingCure}");
    }

    /// <summary>Loads a model in any layout of the model library: a folder with its tokenizer.json and, where it is there, trainer.json (the checkpoint of a LoRA run with its base, too), or a llama2.c file
    /// with its tokenizer beside it.</summary>
    /// <param name="tokenizerPlaces">Where the file of a tokenizer that names a published encoding may lie besides the folder.</param>
    /// <param name="adapter">The folder of a LoRA adapter that is attached for good, or null. Where it has a tokenizer, that one counts.</param>
    /// <exception cref="ModelException">Something is missing, damaged or does not fit; the message says what.</exception>
    public static LoadedModel Load(string folder, ComputeDevice device, IReadOnlyList<string> tokenizerPlaces, string? adapter = null)
    {
        Complete(folder);
        try
        {
            (Decoder decoder, Adapter? attached) = CheckpointModel.Load(folder, device.Device, adapter);
            try
            {
                int vocabulary = decoder.AdaptedConfig.VocabularySize;
                string file = (adapter is null ? null : ModelTokenizer.Beside(adapter, vocabulary)) ?? ModelTokenizer.Beside(folder, vocabulary)
                    ?? throw new ModelException(ModelFailure.Unusable, $"{folder} has no tokenizer beside it: import it with `nopegpt import {folder} --tokenizer FILE --out DIR` and use that folder");
                Tokenizer tokenizer = Tokenizer.Load(file, tokenizerPlaces).ForModel(vocabulary, folder);
                decoder.eval();
                return new(folder, decoder, attached, tokenizer, ReadContext(folder, decoder.Config), device.ThreadsFor(decoder.Config.ParameterCount));
            }
            catch
            {
                attached?.Dispose();
                decoder.Dispose();
                throw;
            }
        }
        catch (FileNotFoundException e) when (e.FileName?.EndsWith(".tiktoken", StringComparison.Ordinal) == true) { throw new ModelException(ModelFailure.FileMissing, e.Message.TrimEnd('.')); }
        catch (Exception e) when (e is InvalidDataException or IOException or JsonException or ArgumentException or UnauthorizedAccessException)
        {
            throw new ModelException(ModelFailure.Unusable, e.Message.TrimEnd('.'));
        }
        catch (Exception e) when (e is OutOfMemoryException || e.Message.Contains("can't allocate memory", StringComparison.Ordinal) || e.Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase))
        {
            throw new ModelException(ModelFailure.NoRoom, $"{folder} does not fit into the memory that is left ({e.Message.Split('\n')[0].TrimEnd('.')}): end other programs or take a smaller model");
        }
    }

    public void Dispose()
    {
        _adapter?.Dispose();
        Decoder.Dispose();
    }

    private static int ReadContext(string folder, ModelConfig config) =>
        Checkpoint.TrainerState(folder)?["tokens_per_sample"] is JsonValue value && value.TryGetValue(out int length) && length > 0 ? length
            : config.ContextLength > 0 ? config.ContextLength : UsualContext;
}

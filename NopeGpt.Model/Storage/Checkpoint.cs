using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage.Layouts;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>A model on disk with everything that its training needs to go on. config.json, model.safetensors and tokenizer.json are as the
/// Python package nope-gpt writes them, so a folder of that package loads here (without optimizer) and this one's loads there.</summary>
public static class Checkpoint
{
    private const int FormatVersion = 1;
    private const string VersionKey = "format_version", HashesKey = "hashes";
    private const string StepPrefix = "step-";

    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    /// <summary>The folder's name for a step: step-000000100.</summary>
    public static string FolderName(long step) => StepPrefix + step.ToString("D9", CultureInfo.InvariantCulture);

    /// <summary>Writes a checkpoint. It appears under its name complete and flushed to the disk, or not at all.</summary>
    /// <param name="tokenizerFile">The tokenizer.json to copy.</param>
    /// <param name="trainerState">Kept in trainer.json, with the format's version and the SHA-256 of every file, its own values too, added.</param>
    /// <exception cref="IOException">The disk is full or unwritable. Nothing is left behind.</exception>
    public static void Save(string folder, Decoder model, Optimizer optimizer, string tokenizerFile, JsonObject trainerState)
    {
        model.RequireParameters();
        using DisposeScope scope = NewDisposeScope();
        Save(folder, new TrainingState(model.Config, model.Parameters(), [.. optimizer.State()]), tokenizerFile, trainerState);
    }

    /// <summary>As the other. The tensors must not change meanwhile: give a copy where training goes on, such as <see cref="Replicas.ReplicaGroup.Capture"/> makes.</summary>
    /// <inheritdoc cref="Save(string, Decoder, Optimizer, string, JsonObject)"/>
    public static void Save(string folder, TrainingState tensors, string tokenizerFile, JsonObject trainerState) =>
        Save(folder, tensors, tokenizerFile, trainerState, CheckpointFiles.Hashed, files => WriteModel(files, tensors.Config, tensors.Parameters));

    /// <summary>Writes a checkpoint of an adapter in training: adapter.json and adapter.safetensors, as <see cref="Adapter.Load"/> reads them, in place of a
    /// model's files. Whoever goes on from it needs the base too.</summary>
    /// <param name="tensors">Of a group that trains the adapter alone.</param>
    /// <inheritdoc cref="Save(string, TrainingState, string, JsonObject)"/>
    public static void Save(string folder, Adapter adapter, TrainingState tensors, string tokenizerFile, JsonObject trainerState) =>
        Save(folder, tensors, tokenizerFile, trainerState, CheckpointFiles.HashedOfAdapter, files => AdapterFile.WriteInto(files.Folder, adapter, tensors.Parameters.ToDictionary()));

    private static void Save(string folder, TrainingState tensors, string tokenizerFile, JsonObject trainerState, IReadOnlyList<string> hashed, Action<CheckpointFiles> write)
    {
        if (!File.Exists(tokenizerFile)) throw new FileNotFoundException($"{tokenizerFile}: the tokenizer to copy into the checkpoint is missing.", tokenizerFile);
        foreach (string key in (string[])[VersionKey, HashesKey])
            if (trainerState.ContainsKey(key)) throw new ArgumentException($"{key} is written by the checkpoint itself: choose another name.", nameof(trainerState));
        CheckpointFolder.Write(folder, aside =>
        {
            CheckpointFiles files = new(aside);
            write(files);
            File.Copy(tokenizerFile, files.Tokenizer);
            SafetensorsFile.Save(files.Optimizer, tensors.Optimizer);
            JsonObject trainer = (JsonObject)trainerState.DeepClone();
            trainer[VersionKey] = FormatVersion;
            JsonObject hashes = new(hashed.Select(name => KeyValuePair.Create(name, (JsonNode?)Hash(Path.Combine(aside, name)))));
            trainer[HashesKey] = hashes;
            // Read back once, so that numbers and strings are hashed in the spelling that a reader of the file meets.
            hashes[CheckpointFiles.TrainerName] = HashWithoutOwn((JsonObject)JsonNode.Parse(trainer.ToJsonString())!);
            File.WriteAllText(files.Trainer, trainer.ToJsonString(Indented) + "\n");
        });
    }

    /// <summary>Writes a model alone: config.json and model.safetensors, no optimizer. It appears under its name complete and flushed to the disk, or not at all.</summary>
    /// <param name="addFiles">Writes more files, such as a tokenizer.json, into the folder that it is given.</param>
    /// <exception cref="IOException">The disk is full or unwritable. Nothing is left behind.</exception>
    public static void SaveModel(string folder, Decoder model, Action<string>? addFiles = null) => CheckpointFolder.Write(folder, aside =>
    {
        model.RequireParameters();
        WriteModel(new CheckpointFiles(aside), model.Config, model.Parameters());
        addFiles?.Invoke(aside);
    });

    private static void WriteModel(CheckpointFiles files, ModelConfig config, IReadOnlyList<(string Name, Tensor Tensor)> parameters)
    {
        config.Write(files.Config);
        using DisposeScope scope = NewDisposeScope();
        // The rows that pad the vocabulary hold nothing, and the Python package, which knows no padding, reads the file without them.
        static bool IsTable(string name) => name is CanonicalNames.Embedding or CanonicalNames.Head;
        SafetensorsFile.Save(files.Model, parameters.Select(p => (p.Name, IsTable(p.Name) ? p.Tensor.narrow(0, 0, config.VocabularySize) : p.Tensor)),
            new Dictionary<string, string> { ["format"] = "pt" });
    }

    /// <summary>Deletes a checkpoint. Its name is gone first, so that no crash leaves half of one under it.</summary>
    public static void Delete(string folder) => CheckpointFolder.Delete(folder);

    /// <summary>Deletes what a crash in the middle of a save or a deletion has left in the folder of the checkpoints, and restores one that was about to be
    /// replaced. Not while another process saves there.</summary>
    public static void CleanTemporary(string parent) => CheckpointFolder.CleanTemporary(parent);

    /// <summary>Deletes what an abandoned writing of this folder has left beside it.</summary>
    public static void CleanTemporaryOf(string folder) => CheckpointFolder.CleanTemporaryOf(folder);

    /// <summary>Checks that a checkpoint is complete.</summary>
    /// <param name="verify">Compares the hashes of the large files too, which reads every byte; that of trainer.json always is compared.</param>
    /// <exception cref="InvalidDataException">A file is missing, damaged or of another version; the message has the file, the reason and the cure.</exception>
    public static CheckpointFiles Open(string folder, bool verify = true)
    {
        CheckpointFiles files = new(folder);
        if (!Directory.Exists(folder)) throw new InvalidDataException($"{folder}: there is no such checkpoint; choose an existing one.");
        IReadOnlyList<string> hashed = files.IsAdapter ? CheckpointFiles.HashedOfAdapter : CheckpointFiles.Hashed;
        string[] missing = [.. hashed.Append(CheckpointFiles.TrainerName).Where(name => !File.Exists(Path.Combine(folder, name)))];
        if (missing.Length > 0) throw new InvalidDataException($"{folder}: the checkpoint lacks {string.Join(", ", missing)}; use an earlier one.");
        JsonObject trainer = ReadTrainer(files.Trainer);
        if (verify) Verify(folder, trainer, hashed);
        return files;
    }

    /// <summary>Loads a model from a checkpoint, or whatever else <see cref="HubLayout.Recognise"/> recognises. It is in training mode, like a new one.</summary>
    /// <param name="path">A folder, a .safetensors file with its config beside it, or a llama2.c .bin file.</param>
    /// <param name="verify">Compares the hashes of the two files where the folder has a trainer.json.</param>
    /// <exception cref="InvalidDataException">A file is missing or damaged, or the tensors are not those of the config; all that do not fit are named.</exception>
    public static Decoder LoadModel(string path, Device? device = null, bool verify = true)
    {
        CheckpointFiles files = new(File.Exists(path) && Path.GetFileName(path) == CheckpointFiles.ModelName ? Path.GetDirectoryName(Path.GetFullPath(path))! : path);
        if (verify && File.Exists(files.Trainer)) Verify(files.Folder, ReadTrainer(files.Trainer), [CheckpointFiles.ConfigName, CheckpointFiles.ModelName]);
        using FileModel file = FileModel.Open(path);
        Decoder model = Decoder.Empty(file.Config, device);
        try
        {
            file.CopyInto(model);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>What trainer.json holds; null for a folder without one, such as a model of the reference.</summary>
    /// <exception cref="InvalidDataException">The file is damaged.</exception>
    public static JsonObject? TrainerState(string folder)
    {
        string path = new CheckpointFiles(folder).Trainer;
        return File.Exists(path) ? ReadTrainer(path) : null;
    }

    /// <summary>Restores the optimizer.</summary>
    /// <exception cref="InvalidDataException">The file is missing, damaged, or of another model or optimizer. Nothing was changed.</exception>
    public static void LoadOptimizer(string folder, Optimizer optimizer) => LoadOptimizer(folder, optimizer.Restore);

    /// <param name="restore">Takes the saved state over, such as <see cref="Replicas.ReplicaGroup.RestoreOptimizer"/>.</param>
    /// <inheritdoc cref="LoadOptimizer(string, Optimizer)"/>
    public static void LoadOptimizer(string folder, Action<IReadOnlyDictionary<string, Tensor>> restore)
    {
        string path = new CheckpointFiles(folder).Optimizer;
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsFile tensors = OpenTensors(path);
        try
        {
            restore(tensors.Names.ToDictionary(name => name, tensors.Load));
        }
        catch (InvalidDataException e)
        {
            throw new InvalidDataException($"{path}: {e.Message}", e);
        }
    }

    /// <summary>The checkpoints of a run, newest first. Whether they are whole is not looked at.</summary>
    public static IReadOnlyList<(string Path, long Step)> List(string checkpointsFolder)
    {
        if (!Directory.Exists(checkpointsFolder)) return [];
        List<(string Path, long Step)> found = [];
        foreach (string folder in Directory.EnumerateDirectories(checkpointsFolder, StepPrefix + "*"))
        {
            if (long.TryParse(Path.GetFileName(folder.AsSpan())[StepPrefix.Length..], NumberStyles.None, CultureInfo.InvariantCulture, out long step))
                found.Add((folder, step));
        }
        return [.. found.OrderByDescending(c => c.Step)];
    }

    /// <summary>The newest checkpoint that is whole, or null.</summary>
    /// <param name="warn">Gets one sentence for each damaged one that is passed over.</param>
    public static string? NewestValid(string checkpointsFolder, Action<string> warn)
    {
        foreach ((string path, _) in List(checkpointsFolder))
        {
            try
            {
                Open(path);
                return path;
            }
            catch (InvalidDataException e)
            {
                warn($"A damaged checkpoint is passed over. {e.Message}");
            }
        }
        return null;
    }

    private static SafetensorsFile OpenTensors(string path) => Readable(path, () => SafetensorsFile.Open(path));

    private static JsonObject ReadTrainer(string path)
    {
        string text = Readable(path, () => File.ReadAllText(path));
        JsonObject? trainer;
        try
        {
            trainer = JsonNode.Parse(text, documentOptions: new JsonDocumentOptions { AllowDuplicateProperties = false }) as JsonObject;
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{path}: not valid JSON ({e.Message}); use an earlier checkpoint.", e);
        }
        if (trainer?[VersionKey] is not JsonValue value || !value.TryGetValue(out int version) || version < 1)
            throw new InvalidDataException($"{path}: its {VersionKey} is missing, so this is no trainer state of NopeGpt or it is damaged; use an earlier checkpoint.");
        if (version > FormatVersion)
            throw new InvalidDataException($"{path}: its {VersionKey} is {version} and this program knows up to {FormatVersion}; use a newer NopeGpt.");
        if ((trainer[HashesKey] as JsonObject)?[CheckpointFiles.TrainerName] is not JsonValue own || !own.TryGetValue(out string? expected) || HashWithoutOwn(trainer) != expected)
            throw new InvalidDataException($"{path}: its values do not match its own SHA-256, so it was changed or damaged; use an earlier checkpoint.");
        return trainer;
    }

    /// <summary>The SHA-256 of trainer.json's values in the shortest spelling, without the one that is this hash.</summary>
    private static string HashWithoutOwn(JsonObject trainer)
    {
        JsonObject rest = (JsonObject)trainer.DeepClone();
        (rest[HashesKey] as JsonObject)?.Remove(CheckpointFiles.TrainerName);
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(rest.ToJsonString())));
    }

    private static void Verify(string folder, JsonObject trainer, IEnumerable<string> names)
    {
        JsonObject? hashes = trainer[HashesKey] as JsonObject;
        foreach (string name in names)
        {
            string path = Path.Combine(folder, name);
            if (hashes?[name] is not JsonValue value || !value.TryGetValue(out string? expected))
                throw new InvalidDataException($"{path}: {CheckpointFiles.TrainerName} has no hash of it, so it is damaged; use an earlier checkpoint.");
            if (Readable(path, () => Hash(path)) != expected)
                throw new InvalidDataException($"{path}: its SHA-256 is not the one in {CheckpointFiles.TrainerName}, so it was changed or damaged; use an earlier checkpoint.");
        }
    }

    private static string Hash(string path)
    {
        using FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 1 << 20, FileOptions.SequentialScan);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    private static T Readable<T>(string path, Func<T> read)
    {
        try
        {
            return read();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidDataException($"{path}: cannot be read ({e.Message}); restore the file or use another checkpoint.", e);
        }
    }
}

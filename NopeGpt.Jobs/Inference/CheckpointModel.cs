using System.Text.Json.Nodes;
using NopeGpt.Model;
using NopeGpt.Model.Storage;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Inference;

/// <summary>The checkpoints of runs as models: one of a LoRA run has the adapter alone, and names its base.</summary>
internal static class CheckpointModel
{
    /// <summary>Of trainer.json: the folder of the base.</summary>
    public const string BaseKey = "base_checkpoint_path";

    /// <summary>True for the checkpoint of a LoRA run.</summary>
    public static bool IsAdapter(string folder) => new CheckpointFiles(folder).IsAdapter;

    /// <summary>The folder or file with the weights: the checkpoint itself, or the base of its adapter.</summary>
    /// <exception cref="InvalidDataException">The base is not told, or not there.</exception>
    public static string Weights(string folder)
    {
        if (!IsAdapter(folder)) return folder;
        if (Checkpoint.TrainerState(folder)?[BaseKey] is not JsonValue value || !value.TryGetValue(out string? found))
            throw new InvalidDataException($"{folder} is an adapter and does not tell its base: name the base as the checkpoint, and this folder as its adapter");
        return Path.Exists(found) ? found : throw new InvalidDataException($"{folder} is an adapter, and its base {found} is not there: put it back, or name it where it is now as the checkpoint, and this folder as its adapter");
    }

    /// <summary>The model of a checkpoint, with its adapter attached where it is one's.</summary>
    /// <param name="adapter">Another adapter, for a checkpoint that is none.</param>
    /// <param name="strength">How much of the adapter acts: 1 as it was trained.</param>
    /// <returns>The adapter, or null; dispose of it after the model.</returns>
    /// <exception cref="InvalidDataException">Something is missing, damaged or does not fit.</exception>
    public static (Decoder Model, Adapter? Adapter) Load(string folder, Device device, string? adapter = null, double strength = 1)
    {
        if (IsAdapter(folder))
        {
            if (adapter is not null) throw new InvalidDataException($"{folder} is an adapter itself, and {adapter} cannot be added to it: name its base {Weights(folder)} as the checkpoint");
            adapter = folder;
        }
        Decoder model = Checkpoint.LoadModel(Weights(folder), device);
        Adapter? attached = null;
        try
        {
            if (adapter is not null) model.Attach(attached = Adapter.Load(adapter, model), strength);
            return (model, attached);
        }
        catch
        {
            attached?.Dispose();
            model.Dispose();
            throw;
        }
    }
}

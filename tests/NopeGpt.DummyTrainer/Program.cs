using NopeGpt.DummyTrainer;

// train RUN_FOLDER --root DIR --detached   speaks the contract of a run's folder without training anything
// dashboard DIR KEY=VALUE...               a host with the queue and nothing else, whose trainers are this program
return args switch
{
    ["train", string folder, .. string[] options] => await Trainer.RunAsync(folder, options),
    ["dashboard", string root, .. string[] settings] => await Dashboard.RunAsync(root, settings),
    _ => throw new ArgumentException($"not understood: {string.Join(' ', args)}"),
};

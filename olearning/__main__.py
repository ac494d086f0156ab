from olearning.cli import main

main()
